//! wip
mod budget;
mod clock;
mod engine;
mod judge;
mod piece;
mod recover;
mod state;

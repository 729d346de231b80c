//! TraceQL as the language of conditions.
//!
//! A text goes through [`lexer`], [`parser`] (a tree with positions), [`predicate`] (types checked, compiled) and
//! [`condition`] (arranged by what has to be read). Grammar, precedence and the meaning of operators are
//! Tempo's; its pages are the reference. Two extensions: `tracestate.<key>` and `span:sampled`.

mod condition;
mod error;
mod field;
mod lexer;
mod parser;
mod predicate;
mod source;
mod value;

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

pub use condition::FOLDS_MAX;
pub(super) use condition::{Condition, Fold, Folds};
pub use error::QueryError;
pub(super) use source::OfFacts;

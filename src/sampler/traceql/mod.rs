//! TraceQL as the language of conditions.
//!
//! A text goes through [`lexer`], [`parser`] (a tree with positions, [`ast`]), [`query`] and [`predicate`] (types checked,
//! compiled) and [`plan`] (arranged by what has to be read). [`fold`] is asked of every span that comes in; [`eval`],
//! [`structure`] and [`aggregate`] of traces that nothing else decides, over the [`table`] of their spans.
//!
//! Grammar, precedence and the meaning of operators are Tempo's; its pages are the reference. What Tempo's grammar has
//! and its engine does not do yet is done here: `parent.`, `childCount`, arithmetic of aggregates, and numbers of pipelines
//! in parentheses, of which `count()` is 0 where they select nothing. Two extensions: `tracestate.<key>` and
//! `span:sampled`.

mod aggregate;
mod ast;
mod error;
mod eval;
mod expression;
mod field;
mod fold;
mod key;
mod lexer;
mod parser;
mod part;
mod plan;
mod predicate;
mod query;
mod source;
mod span_field;
mod spansets;
mod structure;
mod table;
mod value;

#[cfg(test)]
mod naive;
#[cfg(test)]
mod tests;

pub use error::QueryError;
pub(super) use fold::Folds;
pub use fold::{FOLDS_MAX, Folding};
pub(super) use plan::Condition;
pub use span_field::SpanField;
pub(super) use table::Asked;

//! Conditions in the OpenTelemetry Transformation Language, as far as TraceQL has words for them.
//!
//! Read are boolean expressions over paths (`attributes["k"]`, `resource.attributes["k"]`, `name`, `kind`,
//! `status.code`, durations from two times), comparisons, arithmetic, `IsMatch` and its like. Anything else is
//! refused by name: a condition is said whole or not at all.

mod parser;
mod translate;

use crate::convert::traceql::Inner;

/// What a condition is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    Span,
    Event,
}

/// The condition without braces, and what is only nearly the same about it.
///
/// # Errors
///
/// Why it cannot be said, as a sentence.
pub(super) fn condition(text: &str, context: Context) -> Result<(Inner, Vec<String>), String> {
    translate::inner(&parser::parse(text)?, context)
}

#[cfg(test)]
mod tests;

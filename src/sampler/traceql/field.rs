//! What a condition can ask about: intrinsics and attributes, with type and reach.

use super::key::Key;
use super::value::Type;

/// Where an attribute stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `.x`: the span's, else the resource's, else an event's, a link's or the instrumentation's.
    Any,
    Span,
    Resource,
    Event,
    Link,
    Instrumentation,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    RootName,
    RootService,
    TraceDuration,

    TraceId,
    SpanId,
    ParentId,
    Parent,
    Name,
    Kind,
    Status,
    Duration,
    Sampled,
    TraceState(Box<str>),

    StatusMessage,
    Attribute {
        scope: Scope,
        key: Key,
    },
    EventName,
    EventTimeSinceStart,
    LinkTraceId,
    LinkSpanId,
    InstrumentationName,
    InstrumentationVersion,

    /// How many spans of the unit name it as their parent.
    ChildCount,
    /// An attribute of the span that it names as its parent, if the unit has it.
    ParentAttribute {
        scope: Scope,
        key: Key,
    },
}

/// What has to be looked at to read a field, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// The unit alone: the same for all its spans.
    Unit,
    /// What the scan finds in a span.
    Scan,
    /// The bytes of a span, its resource and its instrumentation scope.
    Bytes,
    /// The other spans of the unit.
    Relatives,
}

/// What a bare word means.
pub(crate) enum Word {
    Field(Field),
    /// TraceQL has it, and a sampler cannot say it: why.
    Refused(&'static str),
}

const NESTED_SET: &str = "it is a number that a storage gives a span; a root is `parent = nil`, and `>`, `>>`, `~` \
                          relate spans";

impl Field {
    /// The intrinsic of that name, in either spelling.
    pub(crate) fn intrinsic(word: &str) -> Option<Word> {
        let field = match word {
            "rootName" | "trace:rootName" => Self::RootName,
            "rootServiceName" | "trace:rootService" => Self::RootService,
            "traceDuration" | "trace:duration" => Self::TraceDuration,
            "trace:id" => Self::TraceId,
            "span:id" => Self::SpanId,
            "span:parentID" => Self::ParentId,
            "parent" => Self::Parent,
            "name" | "span:name" => Self::Name,
            "kind" | "span:kind" => Self::Kind,
            "status" | "span:status" => Self::Status,
            "duration" | "span:duration" => Self::Duration,
            "span:sampled" => Self::Sampled,
            "statusMessage" | "span:statusMessage" => Self::StatusMessage,
            "event:name" => Self::EventName,
            "event:timeSinceStart" => Self::EventTimeSinceStart,
            "link:traceID" => Self::LinkTraceId,
            "link:spanID" => Self::LinkSpanId,
            "instrumentation:name" => Self::InstrumentationName,
            "instrumentation:version" => Self::InstrumentationVersion,
            "childCount" | "span:childCount" => Self::ChildCount,
            "nestedSetLeft" | "nestedSetRight" | "nestedSetParent" => {
                return Some(Word::Refused(NESTED_SET));
            }
            _ => return None,
        };
        Some(Word::Field(field))
    }

    pub(crate) fn reach(&self) -> Reach {
        match self {
            Self::RootName | Self::RootService | Self::TraceDuration => Reach::Unit,
            Self::TraceId
            | Self::SpanId
            | Self::ParentId
            | Self::Parent
            | Self::Name
            | Self::Kind
            | Self::Status
            | Self::Duration
            | Self::Sampled
            | Self::TraceState(_) => Reach::Scan,
            Self::ChildCount | Self::ParentAttribute { .. } => Reach::Relatives,
            _ => Reach::Bytes,
        }
    }

    /// Whether it is an attribute, or of the instrumentation scope: what a span has none of is the same for all spans
    /// of its scope.
    pub(super) fn is_attribute(&self) -> bool {
        matches!(self, Self::Attribute { .. } | Self::InstrumentationName | Self::InstrumentationVersion)
    }

    /// The key without which a span, its events and its links have nothing to say.
    pub(super) fn key_in_span(&self) -> Option<&Key> {
        match self {
            Self::Attribute { scope: Scope::Any | Scope::Span | Scope::Event | Scope::Link, key } => {
                Some(key)
            }
            _ => None,
        }
    }

    pub(crate) fn kind(&self) -> Type {
        match self {
            Self::TraceDuration | Self::Duration | Self::EventTimeSinceStart => Type::Duration,
            Self::Kind => Type::Kind,
            Self::Status => Type::Status,
            Self::Sampled => Type::Bool,
            Self::Parent => Type::Span,
            Self::ChildCount => Type::Int,
            Self::Attribute { .. } | Self::ParentAttribute { .. } => Type::Any,
            _ => Type::Text,
        }
    }

    /// Whether a span can be without it.
    pub(crate) fn can_be_nil(&self) -> bool {
        !matches!(
            self,
            Self::TraceId
                | Self::SpanId
                | Self::Name
                | Self::Kind
                | Self::Status
                | Self::StatusMessage
                | Self::Sampled
                | Self::InstrumentationName
                | Self::InstrumentationVersion
                | Self::ChildCount
        )
    }
}

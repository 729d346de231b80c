//! The columns of a file: one row per span.
//!
//! # Reading back exactly what was sent
//!
//! * **A promoted column is an attribute's only home if the map beside it holds none of that column's names**, neither
//!   the present nor an older one ([`Promoted`]); otherwise it is a copy, for queries. So an attribute is found either in
//!   its map or in its column, and an attribute under an old name, or of an unexpected kind, stays in the map as it came.
//! * Values in maps are text. A map's sibling `*_types` says what kind a value is that is not a string; the kinds are
//!   listed in the module `value`. A null is an empty value.
//! * `exception_type` is always a copy, from the span's first event that has an `exception.type`.
//! * `kind` and `status_code` are the names of the protocol without prefix, or the number if it has no name.
//! * Times and counts are the protocol's unsigned integers in signed columns of the same width, bit by bit.
//! * Of a key that stands twice the last is kept. The order of attributes is not kept, nor are fields that this version of the
//!   protocol does not know.
//!
//! `trace_*` and `root_*` describe the record that a row left with: usually the whole trace, or one unit of a stream. Of what
//! fills more than a piece, and of more units than have records of their own, it is a part.

use std::fmt::Write;
use std::sync::Arc;

use parquet::errors::Result;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;

/// Names the set of columns; written to every file and fixed when a segment is opened.
pub const VERSION: u32 = 1;

/// Share of absent trace IDs that a row group's bloom filter takes for present.
pub(super) const BLOOM_FALSE_POSITIVES: f64 = 0.01;

/// Columns of numbers with lowest and highest value, page by page.
pub(super) const BOUNDED: &[&str] = &[
    "start_time",
    "start_time_unix_nano",
    "end_time_unix_nano",
    "duration_nano",
    "http_response_status_code",
    "trace_start",
    "trace_duration_nano",
    "trace_span_count",
    "trace_error_count",
    "decision_time",
];

/// An attribute with a column of its own.
#[derive(Debug)]
pub(super) struct Promoted {
    pub(super) column: &'static str,
    pub(super) name: &'static str,
    /// Names that older semantic conventions gave it.
    pub(super) old_names: &'static [&'static str],
    /// An INT32 column, for integers in its range; the others are for strings.
    pub(super) integer: bool,
}

const fn text(column: &'static str, name: &'static str, old_names: &'static [&'static str]) -> Promoted {
    Promoted { column, name, old_names, integer: false }
}

/// Where `service_name` stands among the resource's.
pub(super) const SERVICE_NAME: usize = 0;

pub(super) const RESOURCE: &[Promoted] = &[
    text("service_name", "service.name", &[]),
    text("service_namespace", "service.namespace", &[]),
    text("service_version", "service.version", &[]),
    text("deployment_environment_name", "deployment.environment.name", &["deployment.environment"]),
    text("k8s_namespace_name", "k8s.namespace.name", &[]),
    text("k8s_pod_name", "k8s.pod.name", &[]),
];

pub(super) const SPAN: &[Promoted] = &[
    text("http_request_method", "http.request.method", &["http.method"]),
    Promoted {
        column: "http_response_status_code",
        name: "http.response.status_code",
        old_names: &["http.status_code"],
        integer: true,
    },
    text("http_route", "http.route", &[]),
    text("url_path", "url.path", &[]),
    text("server_address", "server.address", &["net.peer.name", "net.host.name"]),
    text("rpc_service", "rpc.service", &[]),
    text("rpc_method", "rpc.method", &[]),
    text("db_system_name", "db.system.name", &["db.system"]),
    text("messaging_system", "messaging.system", &[]),
    text("messaging_destination_name", "messaging.destination.name", &["messaging.destination"]),
    text("error_type", "error.type", &[]),
];

/// The schema, its leaves in the order in which [`super::row_group`] writes them.
pub(super) fn message() -> Result<Arc<Type>> {
    let mut columns = String::from(
        "required binary trace_id (STRING); required binary span_id (STRING); optional binary parent_span_id (STRING);
         required int64 start_time (TIMESTAMP(MICROS, true));
         required int64 start_time_unix_nano; required int64 end_time_unix_nano; required int64 duration_nano;
         required binary name (STRING); required binary kind (STRING);
         required binary status_code (STRING); required binary status_message (STRING);
         required binary trace_state (STRING); required int32 flags;",
    );
    promoted(&mut columns, RESOURCE);
    promoted(&mut columns, SPAN);
    columns += "optional binary exception_type (STRING);";
    attributes(&mut columns, "attributes", "attributes_types");
    columns += "required int32 dropped_attributes_count;";
    attributes(&mut columns, "resource_attributes", "resource_attributes_types");
    columns +=
        "required int32 resource_dropped_attributes_count; required binary resource_schema_url (STRING);
         required binary scope_name (STRING); required binary scope_version (STRING);";
    attributes(&mut columns, "scope_attributes", "scope_attributes_types");
    columns += "required int32 scope_dropped_attributes_count; required binary scope_schema_url (STRING);";
    columns += "required group events (LIST) { repeated group list { required group element {
         required int64 time_unix_nano; required binary name (STRING);";
    attributes(&mut columns, "attributes", "attribute_types");
    columns += "required int32 dropped_attributes_count; } } } required int32 dropped_events_count;
         required group links (LIST) { repeated group list { required group element {
         required binary trace_id (STRING); required binary span_id (STRING); required binary trace_state (STRING);";
    attributes(&mut columns, "attributes", "attribute_types");
    columns += "required int32 dropped_attributes_count; required int32 flags; } } }
         required int32 dropped_links_count;
         required int64 trace_start (TIMESTAMP(MICROS, true)); required int64 trace_duration_nano;
         required int32 trace_span_count; required int32 trace_error_count;
         optional binary root_service_name (STRING); optional binary root_name (STRING); required boolean is_root;
         required binary policy (STRING); required binary reason (STRING); required double sampling_weight;
         required boolean trace_whole; required boolean trace_complete; required boolean is_late;
         required int64 decision_time (TIMESTAMP(MICROS, true));";
    parse_message_type(&format!("message span {{ {columns} }}")).map(Arc::new)
}

fn promoted(columns: &mut String, table: &[Promoted]) {
    for Promoted { column, integer, .. } in table {
        let kind = if *integer { format!("int32 {column}") } else { format!("binary {column} (STRING)") };
        write!(columns, "optional {kind};").expect("memory takes what is written");
    }
}

fn attributes(columns: &mut String, values: &str, kinds: &str) {
    for (name, value) in [(values, "optional"), (kinds, "required")] {
        write!(
            columns,
            "required group {name} (MAP) {{ repeated group key_value {{
             required binary key (STRING); {value} binary value (STRING); }} }}"
        )
        .expect("memory takes what is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_one_that_parquet_reads() {
        let schema = message().unwrap();
        assert_eq!(schema.get_fields().first().unwrap().name(), "trace_id");
        assert_eq!(schema.get_fields().last().unwrap().name(), "decision_time");
    }

    #[test]
    fn no_name_has_two_columns() {
        for table in [RESOURCE, SPAN] {
            let mut names: Vec<_> =
                table.iter().flat_map(|p| p.old_names.iter().copied().chain([p.name])).collect();
            let all = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), all);
        }
    }
}

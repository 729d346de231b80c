//! Finds a trace in the objects of the last hours, with what each file brings along: its bloom filters, the bounds of its
//! row groups and its page index. There is no other index.
//!
//! A miss costs one ranged read of an object's end; a hit a few more.

use std::io::{self, Read};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use bytes::Bytes;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{ChunkReader, FileReader, Length};
use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader};
use percent_encoding::percent_decode_str;
use tokio::runtime::Handle;

use super::Store;
use crate::trace::TraceId;

/// Bytes of an object's end that are read first: its footer, bloom filters and page index.
const TAIL_BYTES: u64 = 512 << 10;
/// Bytes read at least.
const READ_BYTES: u64 = 64 << 10;
/// Objects looked into at once.
const AT_ONCE: usize = 8;
/// An object is in the folder of the hour in which it was begun, and holds what came up to an hour later.
const OBJECT_HOURS: i64 = 1;

/// Spans of a trace that left together, as rows say it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub object: String,
    pub tenant: String,
    pub policy: String,
    pub reason: String,
    pub whole: bool,
    pub complete: bool,
    pub late: bool,
    pub weight: f64,
    pub decided_at_ms: u64,
    /// Of the first of its spans.
    pub trace_state: String,
    pub spans: u64,
}

/// What was found, and how much was looked into.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub stored: Vec<Stored>,
    pub objects: usize,
    /// Objects that could not be read, and why.
    pub unreadable: Vec<String>,
}

/// Looks for a trace in what was begun since then. `tenant`: of this one only.
///
/// # Errors
///
/// The store cannot be listed.
pub async fn find(
    store: &Store,
    trace: TraceId,
    tenant: Option<&str>,
    since: DateTime<Utc>,
) -> Result<Found, object_store::Error> {
    // A folder that is not there yet has no objects.
    let Some((objects, prefix)) = store.objects()? else { return Ok(Found::default()) };
    let listed = list(&*objects, &prefix, tenant, since).await?;
    let mut found = Found { objects: listed.len(), ..Found::default() };
    let looks = listed.into_iter().map(|(tenant, meta)| look_into(objects.clone(), tenant, meta, trace));
    let mut looks = futures::stream::iter(looks).buffer_unordered(AT_ONCE);
    while let Some((object, looked)) = looks.next().await {
        match looked {
            Ok(stored) => found.stored.extend(stored),
            Err(error) => found.unreadable.push(format!("{object}: {error}")),
        }
    }
    found.stored.sort_by_key(|stored| stored.decided_at_ms);
    Ok(found)
}

/// Objects with their tenants.
async fn list(
    store: &dyn ObjectStore,
    prefix: &ObjectPath,
    tenant: Option<&str>,
    since: DateTime<Utc>,
) -> Result<Vec<(String, ObjectMeta)>, object_store::Error> {
    let first = since - TimeDelta::hours(OBJECT_HOURS);
    let mut listed = Vec::new();
    let below = store.list_with_delimiter(Some(prefix)).await?.common_prefixes;
    let mut roots: Vec<(String, ObjectPath)> = below.into_iter().filter_map(tenant_of).collect();
    roots.push((String::new(), prefix.clone()));
    for (name, root) in roots.into_iter().filter(|(name, _)| tenant.is_none_or(|tenant| tenant == name)) {
        let mut day = first.date_naive();
        while day <= Utc::now().date_naive() {
            let folder = root.clone().join(format!("date={day}"));
            let objects: Vec<ObjectMeta> = store.list(Some(&folder)).try_collect().await?;
            let recent =
                objects.into_iter().filter(|meta| hour_of(&meta.location).is_some_and(|hour| hour >= first));
            listed.extend(recent.map(|meta| (name.clone(), meta)));
            day += TimeDelta::days(1);
        }
    }
    Ok(listed)
}

/// The name in `tenant=<percent-encoded>`.
fn tenant_of(folder: ObjectPath) -> Option<(String, ObjectPath)> {
    let last = folder.parts().next_back()?.as_ref().to_owned();
    let encoded = last.strip_prefix("tenant=")?;
    Some((percent_decode_str(encoded).decode_utf8_lossy().into_owned(), folder))
}

/// The end of the hour in whose folder an object lies. Other files are none of ours.
fn hour_of(path: &ObjectPath) -> Option<DateTime<Utc>> {
    let parts: Vec<String> = path.parts().map(|part| part.as_ref().to_owned()).collect();
    let [.., date, hour, file] = parts.as_slice() else { return None };
    let (date, hour) = (date.strip_prefix("date=")?, hour.strip_prefix("hour=")?);
    let begin = NaiveDateTime::parse_from_str(&format!("{date} {hour}:00"), "%Y-%m-%d %H:%M").ok()?;
    file.ends_with(".parquet").then(|| begin.and_utc() + TimeDelta::hours(1))
}

async fn look_into(
    store: Arc<dyn ObjectStore>,
    tenant: String,
    meta: ObjectMeta,
    trace: TraceId,
) -> (String, ParquetResult<Vec<Stored>>) {
    let name = meta.location.to_string();
    let object = Object(Arc::new(Remote {
        store,
        path: meta.location,
        len: meta.size,
        runtime: Handle::current(),
        read: Mutex::default(),
    }));
    let named = name.clone();
    // The reader is not asynchronous.
    let looked = tokio::task::spawn_blocking(move || rows(&object, &named, &tenant, &trace.to_string()));
    (name, looked.await.unwrap_or_else(|error| Err(ParquetError::External(error.into()))))
}

fn rows(object: &Object, name: &str, tenant: &str, trace: &str) -> ParquetResult<Vec<Stored>> {
    let tail = object.0.len.min(TAIL_BYTES);
    object.0.bytes(object.0.len - tail, tail)?;
    let row_groups = row_groups(object, trace)?;
    if row_groups.is_empty() {
        return Ok(Vec::new());
    }
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(object.clone(), options)?;
    let columns = |names: &[&str]| ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    let (ids, wanted) = (columns(&["trace_id"]), columns(COLUMNS));
    let trace = trace.to_owned();
    let same = ArrowPredicateFn::new(ids, move |batch| {
        let ids = batch.column(0).as_string::<i32>();
        Ok(ids.iter().map(|id| Some(id == Some(trace.as_str()))).collect::<BooleanArray>())
    });
    let reader = builder
        .with_row_groups(row_groups)
        .with_projection(wanted)
        .with_row_filter(RowFilter::new(vec![Box::new(same)]))
        .build()?;
    let mut stored: Vec<Stored> = Vec::new();
    for batch in reader {
        let batch = batch?;
        (0..batch.num_rows()).try_for_each(|row| {
            let one =
                row_of(&batch, row).ok_or_else(|| ParquetError::General("not our schema".to_owned()))?;
            let one = Stored { object: name.to_owned(), tenant: tenant.to_owned(), ..one };
            match stored.iter_mut().find(|known| left_together(known, &one)) {
                Some(known) => known.spans += 1,
                None => stored.push(one),
            }
            Ok::<_, ParquetError>(())
        })?;
    }
    Ok(stored)
}

/// Row groups that may hold the trace.
fn row_groups(object: &Object, trace: &str) -> ParquetResult<Vec<usize>> {
    let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
    let options = ReadOptionsBuilder::new().with_reader_properties(properties).build();
    let reader = SerializedFileReader::new_with_options(object.clone(), options)?;
    let mut maybe = Vec::new();
    for number in 0..reader.metadata().num_row_groups() {
        if !within_bounds(reader.metadata().row_group(number), trace) {
            continue;
        }
        let row_group = reader.get_row_group(number)?;
        if row_group.get_column_bloom_filter(0).is_none_or(|filter| filter.check(trace)) {
            maybe.push(number);
        }
    }
    Ok(maybe)
}

/// Rows are sorted by trace ID.
fn within_bounds(row_group: &RowGroupMetaData, trace: &str) -> bool {
    let Some(bounds) = row_group.column(0).statistics() else { return true };
    let least = bounds.min_bytes_opt().is_none_or(|least| least <= trace.as_bytes());
    // A bound may be cut short: then it is a prefix of what it stands for, or above it.
    let most =
        bounds.max_bytes_opt().is_none_or(|most| &trace.as_bytes()[..most.len().min(trace.len())] <= most);
    least && most
}

const COLUMNS: &[&str] = &[
    "policy",
    "reason",
    "trace_whole",
    "trace_complete",
    "is_late",
    "sampling_weight",
    "decision_time",
    "trace_state",
];

fn row_of(batch: &RecordBatch, row: usize) -> Option<Stored> {
    let text = |name: &str| {
        let column = batch.column_by_name(name)?.as_string_opt::<i32>()?;
        Some(column.value(row).to_owned())
    };
    let flag = |name: &str| Some(batch.column_by_name(name)?.as_boolean_opt()?.value(row));
    let weight = batch.column_by_name("sampling_weight")?.as_primitive_opt::<Float64Type>()?.value(row);
    let decided = batch.column_by_name("decision_time")?.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some(Stored {
        object: String::new(),
        tenant: String::new(),
        policy: text("policy")?,
        reason: text("reason")?,
        whole: flag("trace_whole")?,
        complete: flag("trace_complete")?,
        late: flag("is_late")?,
        weight,
        decided_at_ms: (decided.value(row) / 1_000) as u64,
        trace_state: text("trace_state")?,
        spans: 1,
    })
}

fn left_together(a: &Stored, b: &Stored) -> bool {
    let same = |stored: &Stored| (stored.whole, stored.complete, stored.late, stored.decided_at_ms);
    a.policy == b.policy && a.reason == b.reason && a.weight == b.weight && same(a) == same(b)
}

/// An object as the reader sees it; what was read once is not read again.
#[derive(Clone, Debug)]
struct Object(Arc<Remote>);

#[derive(Debug)]
struct Remote {
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    len: u64,
    runtime: Handle,
    read: Mutex<Vec<(u64, Bytes)>>,
}

impl Remote {
    fn bytes(&self, start: u64, len: u64) -> ParquetResult<Bytes> {
        let end = start.saturating_add(len);
        if end > self.len {
            return Err(ParquetError::EOF(format!("{end} is behind the end of the object, {}", self.len)));
        }
        let known = self.read.lock().iter().find_map(|(from, bytes)| {
            let holds = *from <= start && end <= from + bytes.len() as u64;
            holds.then(|| bytes.slice((start - from) as usize..(end - from) as usize))
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let range = start..end.max(start + READ_BYTES).min(self.len);
        let read = self.runtime.block_on(self.store.get_range(&self.path, range));
        let read = read.map_err(|error| ParquetError::External(error.into()))?;
        if (read.len() as u64) < len {
            return Err(ParquetError::EOF("the object is shorter than it is listed".to_owned()));
        }
        self.read.lock().push((start, read.clone()));
        Ok(read.slice(..len as usize))
    }
}

impl Length for Object {
    fn len(&self) -> u64 {
        self.0.len
    }
}

impl ChunkReader for Object {
    type T = Sequential;

    fn get_read(&self, start: u64) -> ParquetResult<Sequential> {
        Ok(Sequential { object: self.0.clone(), at: start })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        self.0.bytes(start, length as u64)
    }
}

/// Reads on from a place.
#[derive(Debug)]
struct Sequential {
    object: Arc<Remote>,
    at: u64,
}

impl Read for Sequential {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = (into.len() as u64).min(READ_BYTES).min(self.object.len.saturating_sub(self.at));
        let bytes = self.object.bytes(self.at, len).map_err(io::Error::other)?;
        into[..bytes.len()].copy_from_slice(&bytes);
        self.at += len;
        Ok(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_belongs_to_the_hour_of_its_folder() {
        let hour = |path: &str| hour_of(&ObjectPath::parse(path).unwrap()).map(|hour| hour.to_rfc3339());
        let path = "prefix/tenant=a/date=2026-11-21/hour=12/20261121T120000.000Z-x.parquet";
        assert_eq!(hour(path).as_deref(), Some("2026-11-21T13:00:00+00:00"));
        for other in ["date=2026-11-21/hour=12/.x.parquet.part", "date=x/hour=12/a.parquet", "a.parquet"] {
            assert_eq!(hour(other), None, "{other}");
        }
    }

    #[test]
    fn a_tenants_folder_gives_its_name() {
        let tenant = |path: &str| tenant_of(ObjectPath::parse(path).unwrap()).map(|(tenant, _)| tenant);
        assert_eq!(tenant("prefix/tenant=a%2Fb").as_deref(), Some("a/b"));
        assert_eq!(tenant("prefix/date=2026-11-21"), None);
    }
}

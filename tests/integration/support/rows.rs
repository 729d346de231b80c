//! Parquet files read back with the parquet crate.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::SpanKey;

/// What the tests look at in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub trace_id: String,
    pub span_id: String,
    pub service_name: String,
    pub name: String,
    pub trace_state: String,
    pub status_code: String,
    pub policy: String,
    pub sampling_weight: f64,
    pub start_time_unix_nano: i64,
    pub duration_nano: i64,
}

impl Row {
    pub fn key(&self) -> SpanKey {
        (hex(&self.trace_id).try_into().unwrap(), hex(&self.span_id).try_into().unwrap())
    }
}

/// Lower-case hexadecimal, as identifiers stand in files.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of a hexadecimal text.
pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// All files below a folder, in the order of their paths.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return files };
    for path in entries.map_while(Result::ok).map(|entry| entry.path()) {
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

/// Rows of every Parquet file below a folder.
pub fn rows_below(folder: &Path) -> Vec<Row> {
    let parquet = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "parquet");
    files_below(folder).into_iter().filter(parquet).flat_map(|path| rows(&path)).collect()
}

/// How often each span is in the Parquet files below a folder.
pub fn counts_below(folder: &Path) -> HashMap<SpanKey, usize> {
    let mut counts = HashMap::new();
    for row in rows_below(folder) {
        *counts.entry(row.key()).or_default() += 1;
    }
    counts
}

fn rows(path: &Path) -> Vec<Row> {
    let file = File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    reader.flat_map(|batch| batch_rows(&batch.unwrap())).collect()
}

fn batch_rows(batch: &RecordBatch) -> Vec<Row> {
    let column = |name: &str, kind: &DataType| -> ArrayRef {
        let column = batch.column_by_name(name).unwrap_or_else(|| panic!("no column {name}"));
        cast(column, kind).unwrap()
    };
    let text = |name: &str| {
        let column = column(name, &DataType::Utf8);
        let values = column.as_string::<i32>();
        values.iter().map(|value| value.unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let integer = |name: &str| column(name, &DataType::Int64).as_primitive::<Int64Type>().values().to_vec();
    let weight =
        column("sampling_weight", &DataType::Float64).as_primitive::<Float64Type>().values().to_vec();
    let (trace_id, span_id, service_name, name) =
        (text("trace_id"), text("span_id"), text("service_name"), text("name"));
    let (trace_state, status_code, policy) = (text("trace_state"), text("status_code"), text("policy"));
    let (start, duration) = (integer("start_time_unix_nano"), integer("duration_nano"));
    let row = |n: usize| Row {
        trace_id: trace_id[n].clone(),
        span_id: span_id[n].clone(),
        service_name: service_name[n].clone(),
        name: name[n].clone(),
        trace_state: trace_state[n].clone(),
        status_code: status_code[n].clone(),
        policy: policy[n].clone(),
        sampling_weight: weight[n],
        start_time_unix_nano: start[n],
        duration_nano: duration[n],
    };
    (0..batch.num_rows()).map(row).collect()
}

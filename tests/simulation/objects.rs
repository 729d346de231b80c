//! The Parquet exporter, one step at a time: a sealed segment is listed, each tenant's file is made, uploaded
//! and removed, and at last the cursor moves. Most runs write the names of spans instead of Parquet.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use tailwater::exporter::parquet::{self, Contents, PieceKey, Pieces, Segment};
use tailwater::log::{Open, SegmentInfo, Storage};

use crate::disk::Rig;
use crate::plant::Plant;
use crate::wire::{self, Seen};
use crate::world::World;

const TEMPORARY: &str = "data/parquet.part";

/// A sealed segment on its way.
#[derive(Debug)]
pub struct Upload {
    segment: SegmentInfo,
    contents: Contents,
    /// What is still to be uploaded.
    tenants: Vec<(String, Vec<PieceKey>)>,
}

impl Upload {
    fn begin(rig: &Rig, segment: SegmentInfo) -> io::Result<Self> {
        let contents = Contents::list(Arc::new(rig.clone()), &segment)?;
        let tenants = contents.tenants().map(|(tenant, keys)| (tenant.to_owned(), keys.to_vec())).collect();
        Ok(Self { segment, contents, tenants })
    }
}

impl World {
    /// The next step of the Parquet exporter. True: there was one.
    pub fn export(&mut self) -> Result<bool, String> {
        let Some(life) = &mut self.life else { return Ok(false) };
        let Some(mut upload) = life.upload.take() else {
            let Some(segment) = life.parquet.next_segment() else { return Ok(false) };
            match Upload::begin(&self.rig, segment) {
                Ok(upload) => {
                    let segment = upload.segment.clone();
                    life.upload = Some(upload);
                    self.learn_of_pieces(&segment)?;
                }
                Err(_) if self.rig.is_blown() || self.disk_is_ill => {}
                Err(error) => return Err(format!("a sealed segment cannot be read: {error}")),
            }
            return Ok(!self.disk_is_ill);
        };
        let Some((tenant, keys)) = upload.tenants.pop() else {
            life.parquet.settle(&upload.segment, &upload.contents, upload.contents.spans());
            self.note(format_args!("outbox segment {} is exported", upload.segment.number));
            return Ok(true);
        };
        let rows = rows(&upload.contents.pieces(), &keys);
        let made = rows.and_then(|rows| self.make_file(&upload, &keys, rows.len()).map(|()| rows));
        let is_there = match made {
            Ok(rows) => self.uploaded(&tenant, &upload.segment, rows)?,
            Err(_) if self.rig.is_blown() || self.disk_is_ill => false,
            Err(error) => return Err(format!("a file of pieces cannot be made: {error}")),
        };
        if !is_there {
            upload.tenants.push((tenant, keys));
        }
        if self.rig.remove(Path::new(TEMPORARY)).is_err() && !self.rig.is_blown() && !self.disk_is_ill {
            return Err("the temporary file cannot be removed".to_owned());
        }
        if let Some(life) = &mut self.life {
            life.upload = Some(upload);
        }
        if self.rig.is_blown() {
            self.counts.crashes_in_uploads += 1;
        }
        Ok(!self.disk_is_ill)
    }

    fn make_file(&mut self, upload: &Upload, keys: &[PieceKey], rows: usize) -> io::Result<()> {
        let path = Path::new(TEMPORARY);
        if self.plan.parquet {
            let SegmentInfo { uuid, opened_ms, .. } = upload.segment;
            let header = Segment { uuid, opened_ms };
            let pieces = upload.contents.pieces();
            let encoded = parquet::encode_to(&self.rig, path, &pieces, keys.to_vec(), &header);
            let (_, summary) = encoded.map_err(io::Error::other)?;
            assert_eq!(summary.rows, rows as u64, "each span is a row");
            return Ok(());
        }
        let file = self.rig.open(path, Open::Truncate)?;
        file.write_at(0, &[IoSlice::new(&rows.to_le_bytes())])
    }

    /// Whether the object is in its place, as far as the exporter knows.
    fn uploaded(&mut self, tenant: &str, segment: &SegmentInfo, rows: Vec<Seen>) -> Result<bool, String> {
        let fails = self.store.failing && self.random.percent(70);
        let arrives = !fails || self.random.percent(50);
        let SegmentInfo { uuid, opened_ms, .. } = *segment;
        let mut name = parquet::name(tenant, &Segment { uuid, opened_ms });
        if self.rig.plant == Some(Plant::OtherName) && self.store.objects.contains_key(&name) {
            name.push_str(".again");
        }
        self.note(format_args!("upload of {name}, {} rows, fails: {fails}, arrives: {arrives}", rows.len()));
        for seen in &rows {
            self.recognise(*seen)?;
        }
        if arrives {
            self.store.put(name, rows)?;
        }
        self.counts.failed_uploads += u64::from(fails);
        Ok(!fails)
    }
}

fn rows(pieces: &impl Pieces, keys: &[PieceKey]) -> io::Result<Vec<Seen>> {
    let mut keys = keys.to_vec();
    keys.sort_unstable();
    let mut rows = Vec::new();
    for key in &keys {
        let piece = pieces.read(key)?;
        rows.extend(wire::read(&piece.otlp).ok_or_else(|| io::Error::other("a piece is no OTLP"))?);
    }
    Ok(rows)
}

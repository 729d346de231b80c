//! Opens what the last life left on disk: the state, the outbox, the input log.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tracing::{info, warn};

use super::alarm::Alarm;
use super::place::Place;
use super::recover::Recovered;
use super::state::{self, Saved};
use super::{LogThread, Settings};
use crate::config::{self, Config};
use crate::exporter::outbox::{self, Outbox};
use crate::exporter::parquet;
use crate::log::writer::Fatal;
use crate::log::{self, Storage, SyncMode, WriteLoop, Writer, segment};
use crate::proto::SegmentAttributes;
use crate::trace::Position;

/// Bytes of either log that may wait to be written.
const QUEUE_BYTES: usize = 64 << 20;
/// How long the logs' writers gather before they write. An acknowledgement waits for the first.
const INPUT_LINGER: Duration = Duration::from_micros(300);
const OUTBOX_LINGER: Duration = Duration::from_millis(5);
/// Room reserved on disk for the outbox's segment and the next one.
const OUTBOX_RESERVE: u64 = 4 << 20;

/// Who turns the loops that write the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writers {
    Threads,
    /// Those who wait for them, and whoever holds the writers.
    Hand,
}

/// The state and the outbox: what exporters need.
pub(super) struct Opened {
    pub(super) writers: Writers,
    pub(super) saved: Saved,
    pub(super) outbox: Arc<Outbox>,
    pub(super) outbox_thread: Option<LogThread>,
    /// What was lost so far.
    pub(super) recovered: Recovered,
}

/// Where a reason goes that ends the process.
pub(super) type Failed = watch::Sender<Option<String>>;

impl Opened {
    pub(super) fn open(
        config: &Config,
        place: &Place,
        settings: &Settings,
        writers: Writers,
        failed: &Failed,
    ) -> anyhow::Result<Self> {
        let storage = &settings.storage;
        let mut recovered = Recovered::default();
        let saved = read_state(&**storage, place, &mut recovered)?;
        let straightened =
            segment::straighten(&**storage, &place.input, |header| header.attributes.is_empty());
        let straightened = straightened.with_context(|| format!("read {}", place.input.display()))?;
        let (outbox, outbox_thread, found) = open_outbox(config, settings, place, &saved, writers, failed)?;
        let repaired = straightened + found.repaired;
        if repaired > 0 {
            warn!(files = repaired, "files of the logs had a wrong name or header, which is right again");
        }
        if found.missing_bytes > 0 {
            warn!(bytes = found.missing_bytes, "part of the outbox is gone that an exporter needs");
        }
        recovered.lost_bytes += found.missing_bytes;
        recovered.torn_bytes += found.torn_bytes;
        Ok(Self { writers, saved, outbox, outbox_thread, recovered })
    }
}

fn read_state(storage: &dyn Storage, place: &Place, recovered: &mut Recovered) -> anyhow::Result<Saved> {
    let lost = match state::read(storage, &place.state)? {
        state::Read::Saved(saved) => return Ok(*saved),
        state::Read::Damaged(bytes) => {
            recovered.lost_bytes += bytes;
            true
        }
        state::Read::Nothing => {
            let logs = [&place.input, &place.outbox];
            let files = logs.map(|dir| segment::numbers(storage, dir).map(|files| files.len()));
            files.into_iter().sum::<std::io::Result<usize>>().context("read the logs")? > 0
        }
    };
    let mut saved = Saved::default();
    saved.outbox.is_lost = lost;
    if lost {
        let path = place.state.display();
        warn!(%path, "state is gone or damaged: what was kept is read from the outbox alone, all else begins anew");
    }
    Ok(saved)
}

fn open_outbox(
    config: &Config,
    settings: &Settings,
    place: &Place,
    saved: &Saved,
    writers: Writers,
    failed: &Failed,
) -> anyhow::Result<(Arc<Outbox>, Option<LogThread>, outbox::Found)> {
    let parquet = config.exporters.parquet.as_ref();
    let roll = parquet.map(|parquet| parquet.roll).unwrap_or_default();
    let url = parquet.map(|parquet| parquet.url.clone()).unwrap_or_default();
    let outbox_settings = outbox::Settings {
        data: place.data.clone(),
        roll_age_ms: roll.age.as_millis(),
        roll_bytes: roll.size.0,
        queue_bytes: QUEUE_BYTES,
        reserve_bytes: OUTBOX_RESERVE,
        attributes: SegmentAttributes { parquet_url: url, schema_version: parquet::SCHEMA_VERSION },
        highest_known: saved.outbox_segment,
        again_from: again_from(settings, place, saved).context("read the input log")?,
        known: saved.outbox.clone(),
        new_uuid: settings.new_uuid,
    };
    let names = parquet.map(|_| parquet::EXPORTER.to_owned()).into_iter();
    let names: Vec<String> =
        names.chain(config.exporters.otlp.iter().map(|otlp| otlp.name.to_string())).collect();
    let (outbox, write_loop, found) =
        Outbox::open(settings.storage.clone(), outbox_settings, &names, fatal(failed))
            .context("open the outbox")?;
    if found.torn_bytes > 0 {
        info!(bytes = found.torn_bytes, "cut what was not written whole off the outbox");
    }
    let write_loop = write_loop.lingering(OUTBOX_LINGER);
    let thread = start_writer(writers, outbox.log().writer(), write_loop, "outbox writer", failed)?;
    Ok((Arc::new(outbox), thread, found))
}

/// From where on the outbox can be made again: what the state does not cover is in the input log, if there was one.
fn again_from(settings: &Settings, place: &Place, saved: &Saved) -> std::io::Result<Option<Position>> {
    let files = segment::numbers(&*settings.storage, &place.input)?;
    let is_there = files.iter().any(|(number, _)| *number >= saved.low_water.segment);
    Ok((is_there && !saved.outbox.is_lost).then_some(saved.outbox_covered))
}

pub(super) fn open_input(
    config: &Config,
    storage: &Arc<dyn Storage>,
    place: &Place,
    first_segment: u32,
    writers: Writers,
    failed: &Failed,
) -> anyhow::Result<(Option<Arc<Writer>>, Option<LogThread>)> {
    if config.data.input == config::Input::Memory {
        return Ok((None, None));
    }
    let always = config.data.sync == config::Sync::Always;
    let settings = log::Settings {
        dir: place.input.clone(),
        first_segment,
        sync: if always { SyncMode::Always } else { SyncMode::None },
        queue_bytes: QUEUE_BYTES,
        reserve_bytes: 0,
        sync_names: always,
    };
    let (writer, write_loop) =
        Writer::build(storage.clone(), settings, fatal(failed)).context("open the input log")?;
    let write_loop = write_loop.lingering(INPUT_LINGER);
    let thread = start_writer(writers, &writer, write_loop, "input log's writer", failed)?;
    Ok((Some(Arc::new(writer)), thread))
}

/// A failed fsync: what was acknowledged can no longer be promised, so the process must end.
fn fatal(failed: &Failed) -> Fatal {
    let failed = failed.clone();
    Box::new(move |reason| {
        let consequence = "what it promised may not be on the disk, so this process ends";
        failed.send_replace(Some(format!("{reason}; {consequence}")));
    })
}

/// Starts a log's writer, without which nothing goes on.
fn start_writer(
    writers: Writers,
    writer: &Writer,
    write_loop: WriteLoop,
    name: &str,
    failed: &Failed,
) -> std::io::Result<Option<LogThread>> {
    if writers == Writers::Hand {
        writer.turn_by_hand(write_loop);
        return Ok(None);
    }
    let alarm = Alarm::new(failed, name);
    let run = move || {
        let _alarm = alarm;
        write_loop.run()
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(Some)
}

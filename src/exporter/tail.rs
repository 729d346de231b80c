//! What an exporter reads of the outbox: pieces in order, each once.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::outbox::{Parcel, Subscription, read_piece};
use crate::log::{Group, GroupItem, GroupLog, GroupReader};
use crate::trace::Position;

/// Reads pieces for one exporter, in order, each once.
#[derive(Debug)]
pub struct Tail {
    log: Arc<GroupLog>,
    reader: GroupReader,
    subscription: Subscription,
    /// At most as many as the receiver lets in.
    tenants: HashSet<Arc<str>>,
}

impl Tail {
    /// From the exporter's cursor on.
    pub(super) fn new(log: Arc<GroupLog>, subscription: Subscription) -> Self {
        let reader = log.reader(subscription.cursor.position());
        Self { log, reader, subscription, tenants: HashSet::new() }
    }

    /// The next pieces, about `bytes` of them; none: there are no more yet. Blocks on the disk.
    ///
    /// What cannot be read is stepped over and counted.
    pub fn read(&mut self, bytes: usize) -> io::Result<Vec<Parcel>> {
        let cursor = self.subscription.cursor.position();
        if cursor > self.position() {
            // What lay between was given up for want of room.
            self.reader = self.log.reader(cursor);
        }
        let mut parcels = Vec::new();
        let mut size = 0;
        while size < bytes {
            match self.reader.next() {
                Ok(None) => break,
                // What was read before is not lost with the error, which comes again.
                Err(_) if !parcels.is_empty() => break,
                Err(error) => return Err(error),
                Ok(Some(GroupItem::Group(group))) => {
                    let before = parcels.len();
                    self.open(group, &mut parcels);
                    size += parcels[before..].iter().map(|parcel| parcel.piece.otlp.len()).sum::<usize>();
                }
                Ok(Some(GroupItem::Lost { from, bytes, .. })) => self.unreadable(from, bytes),
            }
        }
        Ok(parcels)
    }

    /// Waits until there may be more; false: never again.
    pub async fn changed(&mut self) -> bool {
        self.reader.changed().await
    }

    /// Behind everything that was read.
    pub fn position(&self) -> Position {
        self.reader.position()
    }

    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    fn open(&mut self, group: Group, parcels: &mut Vec<Parcel>) {
        let before = parcels.len();
        for record in &group.records {
            let Some(piece) = read_piece(record) else {
                self.unreadable(record.at, record.body.len() as u64);
                continue;
            };
            let tenant = self.tenant(&record.tenant);
            parcels.push(Parcel { at: record.at, end: group.at, tenant, piece });
        }
        if let Some(last) = parcels[before..].last_mut() {
            last.end = group.end;
        }
    }

    fn tenant(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.tenants.get(name) {
            return known.clone();
        }
        let tenant: Arc<str> = name.into();
        self.tenants.insert(tenant.clone());
        tenant
    }

    fn unreadable(&self, from: Position, bytes: u64) {
        let exporter = self.subscription.cursor.exporter();
        tracing::error!(exporter, ?from, bytes, "outbox is damaged, what cannot be read is lost");
        self.subscription.metrics.unreadable(bytes);
    }
}

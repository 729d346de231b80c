//! What a seed stands for: the configuration of a run, and how its disk ends a life.

use serde_json::json;
use tailwater::config::{self, Config};
use tailwater::sampler::PolicyConfig;
use tailwater::trace::{Share, Threshold};

use crate::random::Random;
use crate::traffic::Waits;

pub const SINKS: [&str; 2] = ["near", "far"];

/// Shares of the last policy, in percent.
const SHARES: [u64; 5] = [0, 10, 30, 50, 100];

#[derive(Clone, Debug)]
pub struct Plan {
    pub events: u64,
    /// `sync: always`
    pub always: bool,
    /// Lives end by loss of power too, not by `kill -9` alone.
    pub power: bool,
    pub waits: Waits,
    /// So little memory that segments retire early.
    pub pressure: bool,
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub share: u64,
    pub roll_age_ms: u64,
    /// Files are encoded as Parquet, not only listed.
    pub parquet: bool,
}

impl Plan {
    pub fn draw(random: &mut Random) -> Self {
        let always = random.percent(50);
        let pressure = random.percent(15);
        let tight = random.percent(15);
        Self {
            events: random.between(220, 300),
            always,
            power: always || random.percent(30),
            waits: Waits {
                after_root_ms: random.pick(&[2_000, 10_000]),
                max_wait_ms: random.pick(&[20_000, 60_000]),
                hindsight_ms: random.pick(&[60_000, 300_000]),
            },
            pressure,
            memory_bytes: if pressure { 96 << 10 } else { 8 << 20 },
            disk_bytes: if tight { (8 << 20) + (200 << 10) } else { 64 << 20 },
            share: random.pick(&SHARES),
            roll_age_ms: random.pick(&[5_000, 30_000, 300_000]),
            parquet: random.percent(1),
        }
    }

    /// Promises nothing of what was not synced when power was lost.
    pub fn excuses(&self) -> bool {
        self.power && !self.always
    }

    pub fn config(&self) -> Config {
        let mut config = Config::default();
        config.data.path = "data".into();
        config.data.sync = if self.always { config::Sync::Always } else { config::Sync::None };
        config.data.disk.0 = self.disk_bytes;
        config.buffer.memory = of(json!(format!("{}KiB", self.memory_bytes >> 10)));
        config.buffer.after_root = of(json!(format!("{}ms", self.waits.after_root_ms)));
        config.buffer.max_wait = of(json!(format!("{}ms", self.waits.max_wait_ms)));
        config.buffer.hindsight = of(json!(format!("{}ms", self.waits.hindsight_ms)));
        config.policies = policies(self.share);
        let roll = json!({ "age": format!("{}ms", self.roll_age_ms), "size": "64KiB" });
        config.exporters.parquet = Some(of(json!({ "url": "s3://bucket", "roll": roll })));
        let sink = |name| of(json!({ "name": name, "endpoint": "http://backend:4317" }));
        config.exporters.otlp = SINKS.into_iter().map(sink).collect();
        config
    }
}

pub fn other_share(random: &mut Random) -> u64 {
    random.pick(&SHARES)
}

/// Every error, and a share of the rest.
pub fn policies(share: u64) -> Vec<PolicyConfig> {
    of(json!([
        { "name": "errors", "match": "{ status = error }", "keep": "100%" },
        { "name": "rest", "keep": format!("{share}%") },
    ]))
}

pub fn threshold(share: u64) -> Threshold {
    Threshold::of(format!("{share}%").parse::<Share>().expect("a share"))
}

fn of<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("a configuration")
}

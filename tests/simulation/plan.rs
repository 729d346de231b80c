//! What a seed stands for: the configuration of a run, and how its disk ends a life.

use serde_json::{Value, json};
use tailwater::config::{self, Config};
use tailwater::sampler::PolicyConfig;
use tailwater::trace::{Share, Threshold};

use crate::random::Random;
use crate::traffic::Waits;

pub const SINKS: [&str; 3] = ["near", "far", "third"];

/// Shares of the last policy, in percent.
const SHARES: [u64; 5] = [0, 10, 30, 50, 100];

/// What the outbox reserves on disk.
const RESERVED_BYTES: u64 = 8 << 20;

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
    /// `when_full: lose_oldest`, on a disk that does get full.
    pub lose_oldest: bool,
    pub share: u64,
    pub roll_age_ms: u64,
    /// Files are encoded as Parquet, not only listed.
    pub parquet: bool,
    /// What is slow is learned and kept.
    pub slow: bool,
    /// So many traces a minute are kept by the last policy.
    pub at_most: Option<u64>,
    /// Small pieces, so that many traces are larger.
    pub piece_bytes: Option<u32>,
    /// Exporters come and go between lives.
    pub moving: bool,
    /// Bits flip between lives.
    pub damage: bool,
    /// Waits are reloaded, too.
    pub other_waits: bool,
    /// What was judged stays on disk for a while.
    pub keeps_past: bool,
}

impl Plan {
    pub fn draw(random: &mut Random) -> Self {
        let always = random.percent(50);
        let pressure = random.percent(15);
        let lose_oldest = random.percent(12);
        let disk_bytes = match random.below(100) {
            _ if lose_oldest => beside_the_reserve(random.pick(&[4 << 10, 10 << 10, 24 << 10])),
            0..=9 => RESERVED_BYTES + (200 << 10),
            10..=17 => beside_the_reserve(random.pick(&[10 << 10, 40 << 10])),
            _ => 64 << 20,
        };
        let at_most = random.percent(8).then(|| random.pick(&[2, 5]));
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
            disk_bytes,
            lose_oldest,
            share: if at_most.is_some() { 100 } else { random.pick(&SHARES) },
            roll_age_ms: random.pick(&[5_000, 30_000, 300_000]),
            parquet: random.percent(1),
            slow: random.percent(8),
            at_most,
            piece_bytes: random.percent(12).then(|| random.pick(&[1_500, 4_000])),
            moving: random.percent(15),
            damage: random.percent(12),
            other_waits: random.percent(15),
            keeps_past: random.percent(10),
        }
    }

    /// Promises nothing of what was not synced when power was lost.
    pub fn excuses(&self) -> bool {
        self.power && !self.always
    }

    /// Many small traces come at once.
    pub fn bursts(&self) -> bool {
        self.slow || self.at_most.is_some()
    }

    /// What comes on in a hundred new traces is a large one.
    pub fn large(&self) -> u64 {
        if self.piece_bytes.is_some() || self.lose_oldest { 25 } else { 4 }
    }

    pub fn config(&self) -> Config {
        let mut config = Config::default();
        config.data.path = "data".into();
        config.data.sync = if self.always { config::Sync::Always } else { config::Sync::None };
        config.data.disk.0 = self.disk_bytes;
        if self.lose_oldest {
            config.data.when_full = config::WhenFull::LoseOldest;
        }
        if self.keeps_past {
            config.data.input_keep = of(json!("60s"));
        }
        config.buffer.memory = of(json!(format!("{}KiB", self.memory_bytes >> 10)));
        config.buffer.hindsight = of(json!(format!("{}ms", self.waits.hindsight_ms)));
        config.policies = self.policies(self.share);
        set_waits(&mut config, self.waits);
        let roll = json!({ "age": format!("{}ms", self.roll_age_ms), "size": "64KiB" });
        config.exporters.parquet = Some(of(json!({ "url": "s3://bucket", "roll": roll })));
        set_sinks(&mut config, SINKS[..2].iter());
        config
    }

    /// Every error, what is slow if that is learned, and a share of the rest.
    pub fn policies(&self, share: u64) -> Vec<PolicyConfig> {
        let mut policies = vec![json!({ "name": "errors", "match": "{ status = error }", "keep": "100%" })];
        if self.slow {
            policies.push(json!({ "name": "slow", "slower_than": "p95", "keep": "100%" }));
        }
        let keep = match self.at_most {
            Some(most) => json!({ "share": format!("{share}%"), "at_most": format!("{most}/min") }),
            None => json!(format!("{share}%")),
        };
        policies.push(json!({ "name": "rest", "keep": keep }));
        of(Value::Array(policies))
    }
}

/// A budget of which so much is left when the outbox has its reserve, and verdicts their part.
fn beside_the_reserve(bytes: u64) -> u64 {
    (RESERVED_BYTES + bytes) * 16 / 15
}

pub fn set_waits(config: &mut Config, waits: Waits) {
    config.buffer.after_root = of(json!(format!("{}ms", waits.after_root_ms)));
    config.buffer.max_wait = of(json!(format!("{}ms", waits.max_wait_ms)));
}

pub fn set_sinks<'a>(config: &mut Config, names: impl Iterator<Item = &'a &'static str>) {
    let sink = |name: &&str| of(json!({ "name": name, "endpoint": "http://backend:4317" }));
    config.exporters.otlp = names.map(sink).collect();
}

pub fn other_share(random: &mut Random) -> u64 {
    random.pick(&SHARES)
}

pub fn threshold(share: u64) -> Threshold {
    Threshold::of(format!("{share}%").parse::<Share>().expect("a share"))
}

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a configuration")
}

//! Stand-ins for the stages' own sections.
use crate::units::{ByteSize, HumanDuration};
use serde::Deserialize;

pub mod sampler {
    use super::*;
    #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct PolicyConfig {
        pub name: String,
        #[serde(default, rename = "match")]
        pub match_: Option<String>,
        #[serde(default)]
        pub slower_than: Option<String>,
        pub keep: String,
    }
}
pub mod parquet {
    use super::*;
    #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Config {
        pub url: String,
        pub roll: Roll,
    }
    impl Default for Config {
        fn default() -> Self {
            Self { url: "file:./tailwater-data/traces".into(), roll: Roll::default() }
        }
    }
    #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Roll {
        pub age: HumanDuration,
        pub size: ByteSize,
    }
    impl Default for Roll {
        fn default() -> Self {
            Self { age: HumanDuration::from_secs(300), size: ByteSize::gib(1) }
        }
    }
}

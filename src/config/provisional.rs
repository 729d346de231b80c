//! Stand-ins for the stages' own sections.
use crate::units::{ByteSize, HumanDuration};
use serde::Deserialize;

pub mod receiver {
    use super::*;
    #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    pub struct Config {
        pub grpc: Option<Grpc>,
        pub http: Option<Http>,
    }
    impl Default for Config {
        fn default() -> Self {
            Self {
                grpc: Some(Grpc { listen: "127.0.0.1:4317".into() }),
                http: Some(Http { listen: "127.0.0.1:4318".into() }),
            }
        }
    }
    #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Grpc {
        pub listen: String,
    }
    #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Http {
        pub listen: String,
    }
}
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
pub mod otlp {
    use super::*;
    #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Config {
        pub name: String,
        pub endpoint: String,
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

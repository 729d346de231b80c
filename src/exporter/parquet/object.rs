//! Where a segment's object goes: all of it follows from the segment's header and the tenant.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::source::Segment;

/// What a tenant's name keeps of itself in a path.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A place for objects, as `exporters.parquet.url` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Folder(PathBuf),
    Bucket {
        cloud: Cloud,
        /// A container, where Azure is spoken to.
        bucket: String,
        /// Without a slash at either end; may be empty.
        prefix: String,
    },
}

/// Whose interface a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    S3,
    Google,
    Azure,
}

impl Cloud {
    const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    /// Of URLs, with what follows it.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3://",
            Self::Google => "gs://",
            Self::Azure => "az://",
        }
    }
}

/// A URL that names no place for objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error(
        "\"{url}\": expected file: and a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )]
    Unknown { url: String },
    #[error("\"{url}\": a bucket is missing, expected {}bucket/prefix", cloud.scheme())]
    NoBucket { url: String, cloud: Cloud },
    #[error("\"{url}\": a folder is missing, expected file: and a folder")]
    NoFolder { url: String },
    #[error("\"{url}\": expected no query and no fragment; options stand beside the url")]
    Options { url: String },
}

impl Target {
    /// Reads a URL. `file:` takes relative paths and absolute ones, with or without an empty host.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let owned = || url.to_owned();
        if let Some(path) = url.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(TargetError::NoFolder { url: owned() }),
                path => Ok(Self::Folder(PathBuf::from(path))),
            };
        }
        let named = |cloud: Cloud| Some((cloud, url.strip_prefix(cloud.scheme())?));
        let Some((cloud, rest)) = Cloud::ALL.into_iter().find_map(named) else {
            return Err(TargetError::Unknown { url: owned() });
        };
        if rest.contains(['?', '#']) {
            return Err(TargetError::Options { url: owned() });
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(TargetError::NoBucket { url: owned(), cloud });
        }
        Ok(Self::Bucket { cloud, bucket: bucket.into(), prefix: prefix.trim_matches('/').into() })
    }
}

/// The object's name below the URL, for Hive-style readers:
/// `[tenant=<percent-encoded>/]date=YYYY-MM-DD/hour=HH/<opening time UTC>-<segment uuid>.parquet`.
pub fn name(tenant: &str, segment: &Segment) -> String {
    let opened = i64::try_from(segment.opened_ms).ok().and_then(DateTime::<Utc>::from_timestamp_millis);
    let opened = opened.unwrap_or_default();
    let tenant = match tenant {
        "" => String::new(),
        tenant => format!("tenant={}/", utf8_percent_encode(tenant, IN_PATH)),
    };
    format!("{tenant}{}-{}.parquet", opened.format("date=%Y-%m-%d/hour=%H/%Y%m%dT%H%M%S%.3fZ"), segment.uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const SEGMENT: Segment = Segment { uuid: Uuid::from_u128(0xabc), opened_ms: 1_750_000_000_123 };

    #[test]
    fn a_name_follows_from_the_segments_header() {
        let expected =
            "date=2025-06-15/hour=15/20250615T150640.123Z-00000000-0000-0000-0000-000000000abc.parquet";
        assert_eq!(name("", &SEGMENT), expected);
        assert_eq!(name("a/b ü", &SEGMENT), format!("tenant=a%2Fb%20%C3%BC/{expected}"));
    }

    #[test]
    fn a_tenant_cannot_leave_its_folder() {
        assert!(name("../..", &SEGMENT).starts_with("tenant=%2E%2E%2F%2E%2E/date="));
    }

    #[test]
    fn urls_name_folders_and_buckets() {
        let folder = |path: &str| Ok(Target::Folder(path.into()));
        assert_eq!(Target::parse("file:./data/traces"), folder("./data/traces"));
        assert_eq!(Target::parse("file:///data"), folder("/data"));
        assert_eq!(Target::parse("file:/data"), folder("/data"));
        let bucket = |cloud, bucket: &str, prefix: &str| {
            Ok(Target::Bucket { cloud, bucket: bucket.into(), prefix: prefix.into() })
        };
        assert_eq!(Target::parse("s3://bucket"), bucket(Cloud::S3, "bucket", ""));
        assert_eq!(Target::parse("s3://bucket/a/b/"), bucket(Cloud::S3, "bucket", "a/b"));
        assert_eq!(Target::parse("gs://bucket/a"), bucket(Cloud::Google, "bucket", "a"));
        assert_eq!(Target::parse("az://container"), bucket(Cloud::Azure, "container", ""));
    }

    #[test]
    fn what_names_no_place_is_refused_with_what_was_expected() {
        let refusal = |url| Target::parse(url).unwrap_err().to_string();
        assert!(refusal("https://bucket").contains("expected file: and a folder, s3://bucket/prefix, gs://"));
        assert!(refusal("gs:///prefix").contains("expected gs://bucket/prefix"));
        assert!(refusal("/data").contains("expected file:"));
        assert!(refusal("s3:///prefix").contains("a bucket is missing"));
        assert!(refusal("s3://bucket/x?region=eu").contains("no query"));
    }
}

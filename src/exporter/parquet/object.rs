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
    S3 {
        bucket: String,
        /// Without a slash at either end; may be empty.
        prefix: String,
    },
}

/// A URL that names no place for objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error(
        "\"{url}\": {scheme}:// is not supported yet; expected file: and a folder, or s3://bucket/prefix"
    )]
    NotYet { url: String, scheme: &'static str },
    #[error("\"{url}\": expected file: and a folder, or s3://bucket/prefix")]
    Unknown { url: String },
    #[error("\"{url}\": a bucket is missing, expected s3://bucket/prefix")]
    NoBucket { url: String },
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
        if let Some(rest) = url.strip_prefix("s3://") {
            if rest.contains(['?', '#']) {
                return Err(TargetError::Options { url: owned() });
            }
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(TargetError::NoBucket { url: owned() });
            }
            return Ok(Self::S3 { bucket: bucket.into(), prefix: prefix.trim_matches('/').into() });
        }
        match ["gs", "az"]
            .into_iter()
            .find(|scheme| url.strip_prefix(scheme).is_some_and(|r| r.starts_with(':')))
        {
            Some(scheme) => Err(TargetError::NotYet { url: owned(), scheme }),
            None => Err(TargetError::Unknown { url: owned() }),
        }
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
        let s3 = |bucket: &str, prefix: &str| Ok(Target::S3 { bucket: bucket.into(), prefix: prefix.into() });
        assert_eq!(Target::parse("s3://bucket"), s3("bucket", ""));
        assert_eq!(Target::parse("s3://bucket/a/b/"), s3("bucket", "a/b"));
    }

    #[test]
    fn what_is_not_supported_is_refused_with_what_was_expected() {
        let refusal = |url| Target::parse(url).unwrap_err().to_string();
        assert!(refusal("gs://bucket").contains("gs:// is not supported yet"));
        assert!(refusal("az://container").contains("az:// is not supported yet"));
        assert!(refusal("/data").contains("expected file:"));
        assert!(refusal("s3:///prefix").contains("a bucket is missing"));
        assert!(refusal("s3://bucket/x?region=eu").contains("no query"));
    }
}

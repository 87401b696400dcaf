//! Addresses of sets: `s3://BUCKET/PATH`, `gs://BUCKET/PATH`, `az://CONTAINER/PATH`, `https://HOST/PATH/`.

use object_store::path::Path;
use tinyres_format::MANIFEST;

use crate::error::{Error, Result};

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    S3,
    Google,
    Azure,
    Http,
}

/// The address of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its name in messages and in the cache: without a slash or `dataset.json` at its end.
    pub text: String,
    pub kind: Kind,
    /// Scheme and bucket, or scheme and host: `s3://bucket`.
    pub root: String,
    /// The bucket, the container or the host.
    pub bucket: String,
    /// The path of the set in the bucket.
    pub prefix: Path,
}

impl Address {
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |reason: &str| Error::Address {
            address: text.to_owned(),
            reason: reason.to_owned(),
        };
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| bad("not an address"))?;
        let scheme = scheme.to_ascii_lowercase();
        let kind = match scheme.as_str() {
            "s3" | "s3a" => Kind::S3,
            "gs" => Kind::Google,
            "az" | "azure" | "adl" | "abfs" | "abfss" | "wasbs" => Kind::Azure,
            "http" | "https" => Kind::Http,
            _ => return Err(bad("its scheme is not known")),
        };
        if kind == Kind::Http && rest.contains(['?', '#']) {
            return Err(bad(
                "it has a query, and each file of a set would need its own",
            ));
        }
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(bad("it names no bucket"));
        }
        let path = path.trim_matches('/');
        let path = match path.strip_suffix(MANIFEST) {
            Some(before) if before.is_empty() || before.ends_with('/') => before.trim_matches('/'),
            _ => path,
        };
        // The path of a URL is encoded; the key of an object is not.
        let prefix = match kind {
            Kind::Http => Path::from_url_path(path),
            _ => Path::parse(path),
        };
        let root = format!("{scheme}://{bucket}");
        let slash = if path.is_empty() { "" } else { "/" };
        Ok(Self {
            text: format!("{root}{slash}{path}"),
            kind,
            prefix: prefix.map_err(|error| bad(&error.to_string()))?,
            bucket: bucket.to_owned(),
            root,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_set_are_one_address() {
        for (text, root, prefix) in [
            ("s3://b/a/set", "s3://b", "a/set"),
            ("s3://b/a/set/", "s3://b", "a/set"),
            ("S3://b/a/set/dataset.json", "s3://b", "a/set"),
            ("s3://b", "s3://b", ""),
            ("s3://b/dataset.json", "s3://b", ""),
            ("s3://b/my-dataset.json", "s3://b", "my-dataset.json"),
            ("gs://b/a b", "gs://b", "a b"),
            ("https://h:80/a%20b/", "https://h:80", "a b"),
            ("az://c@account/x", "az://c@account", "x"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(
                (address.root.as_str(), address.prefix.as_ref()),
                (root, prefix),
                "{text}"
            );
        }
    }

    #[test]
    fn an_address_without_a_bucket_is_refused() {
        for text in [
            "shards",
            "ftp://h/x",
            "s3:///x",
            "s3://b/../x",
            "https://h/set/?sig=1",
        ] {
            assert!(
                matches!(Address::parse(text), Err(Error::Address { .. })),
                "{text}"
            );
        }
    }
}

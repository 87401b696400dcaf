//! A set's place in a store, and reads from it that go on after a fault.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{env, fmt};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use object_store::aws::{AmazonS3ConfigKey, resolve_bucket_region};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ClientOptions, GetOptions, ObjectStore, RetryConfig, StaticCredentialProvider};
use reqwest::header::HeaderValue;
use tinyres::remote::{Pace, STEP};

use crate::address::{Address, Kind};
use crate::answers::{Connector, Fault, fault};
use crate::aws;
use crate::error::{Error, Result};

/// The first pause after a fault. Each one is twice as long as the one before it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Further tries after damage at the same place: what is damaged in the store stays so.
const DAMAGE_TRIES: u32 = 2;

/// Bounds of waiting.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest wait for the next bytes.
    pub wait: Duration,
    /// Further tries after a fault, as long as none gets any further.
    pub retries: u32,
}

/// The place of a set in a store.
#[derive(Clone)]
pub struct Store {
    pub inner: Arc<dyn ObjectStore>,
    pub address: Address,
    pub patience: Patience,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.address.text).finish()
    }
}

/// An answer to a read.
pub struct Answer {
    /// Length of the whole object in bytes.
    pub len: u64,
    /// The version of the object, if it can be asked for.
    pub version: Option<String>,
    pub bytes: BoxStream<'static, object_store::Result<Bytes>>,
}

impl Store {
    /// Opens the store at `address`, with the settings of the environment. To read, its callers repeat requests, by
    /// [`Retry`]; to write, `object_store` does.
    pub async fn open(address: Address, patience: Patience, writes: bool) -> Result<Self> {
        let options = ClientOptions::new()
            .with_user_agent(HeaderValue::from_static(concat!(
                "tinyres/",
                env!("CARGO_PKG_VERSION")
            )))
            // A shard may take long. What may not is the wait for its next bytes.
            .with_timeout_disabled()
            .with_connect_timeout(patience.wait.min(Duration::from_secs(10)))
            .with_read_timeout(patience.wait)
            .with_allow_http(true);
        let retry = RetryConfig {
            max_retries: if writes {
                2 + patience.retries as usize
            } else {
                0
            },
            ..RetryConfig::default()
        };
        let connector = Connector { once: !writes };
        let text = address.text.clone();
        let bad = |error: object_store::Error| Error::Settings {
            address: text.clone(),
            reason: error.to_string(),
        };
        let inner: Arc<dyn ObjectStore> = match address.kind {
            Kind::S3 => {
                let mut builder = aws::builder(&address.text)?;
                let set = |key| builder.get_config_value(&key).is_some();
                let somewhere = set(AmazonS3ConfigKey::Region)
                    || set(AmazonS3ConfigKey::Endpoint)
                    || set(AmazonS3ConfigKey::S3Endpoint);
                if !somewhere
                    && let Ok(region) = resolve_bucket_region(&address.bucket, &options).await
                {
                    builder = builder.with_region(region);
                }
                let builder = builder
                    .with_bucket_name(&address.bucket)
                    .with_client_options(options)
                    .with_retry(retry)
                    .with_http_connector(connector);
                Arc::new(builder.build().map_err(bad)?)
            }
            Kind::Google => {
                let mut builder = GoogleCloudStorageBuilder::from_env()
                    .with_bucket_name(&address.bucket)
                    .with_client_options(options)
                    .with_retry(retry)
                    .with_http_connector(connector);
                // Google's own libraries take it so.
                if let Some(host) = variable("STORAGE_EMULATOR_HOST") {
                    let url = match host.contains("://") {
                        true => host,
                        false => format!("http://{host}"),
                    };
                    let anyone = GcpCredential {
                        bearer: String::new(),
                    };
                    builder = builder
                        .with_base_url(url.trim_end_matches('/'))
                        .with_credentials(Arc::new(StaticCredentialProvider::new(anyone)))
                        .with_skip_signature(true);
                }
                Arc::new(builder.build().map_err(bad)?)
            }
            Kind::Azure => {
                let builder = azure()
                    .with_url(&address.root)
                    .with_client_options(options)
                    .with_retry(retry)
                    .with_http_connector(connector);
                Arc::new(builder.build().map_err(bad)?)
            }
            Kind::Http => {
                let builder = HttpBuilder::new()
                    .with_url(&address.root)
                    .with_client_options(options)
                    .with_retry(retry)
                    .with_http_connector(connector);
                Arc::new(builder.build().map_err(bad)?)
            }
        };
        Ok(Self {
            inner,
            address,
            patience,
        })
    }

    /// The object `name` of the set, as messages name it.
    pub fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.address.text)
    }

    /// The object `name` of the set, as the store names it.
    pub fn path(&self, name: &str) -> Path {
        self.address.prefix.clone().join(name)
    }

    /// Begins to read the object `name`: a range of its bytes, or all; of a version, or of any.
    pub async fn get(
        &self,
        name: &str,
        range: Option<Range<u64>>,
        version: Option<&String>,
    ) -> std::result::Result<Answer, Fault> {
        let options = GetOptions {
            range: range.map(Into::into),
            if_match: version.cloned(),
            ..GetOptions::default()
        };
        let answer = self.inner.get_opts(&self.path(name), options).await;
        let answer = answer.map_err(|error| self.fault(name, &error))?;
        let etag = answer.meta.e_tag.clone();
        Ok(Answer {
            len: answer.meta.size,
            // A weak tag matches no If-Match.
            version: etag.filter(|etag| !etag.starts_with("W/")),
            bytes: paced(answer.into_stream(), self.patience.wait),
        })
    }

    pub fn fault(&self, name: &str, error: &object_store::Error) -> Fault {
        fault(&self.object(name), self.address.kind, error)
    }

    /// Reads a range of the object `name` to memory, with its length and version. A range that ends after the object is cut.
    pub async fn read(
        &self,
        name: &str,
        range: Range<u64>,
    ) -> Result<(Vec<u8>, u64, Option<String>)> {
        let mut retry = Retry::new(self, name);
        let mut got = Vec::new();
        loop {
            match self.go_on(name, &range, &mut got).await {
                Ok((len, version)) => return Ok((got, len, version)),
                Err(fault) => retry.after(fault, got.len() as u64).await?,
            }
        }
    }

    async fn go_on(
        &self,
        name: &str,
        range: &Range<u64>,
        got: &mut Vec<u8>,
    ) -> std::result::Result<(u64, Option<String>), Fault> {
        let rest = range.start + got.len() as u64..range.end;
        let mut answer = self.get(name, Some(rest), None).await?;
        let expected = range.end.min(answer.len).saturating_sub(range.start);
        while let Some(bytes) = answer.bytes.next().await {
            match bytes {
                Ok(bytes) => got.extend_from_slice(&bytes),
                // All of it came.
                Err(_) if got.len() as u64 == expected => break,
                Err(error) => return Err(self.fault(name, &error)),
            }
        }
        match got.len() as u64 {
            len if len == expected => Ok((answer.len, answer.version)),
            len if len < expected => Err(ended(len, expected)),
            len => {
                got.clear();
                Err(Fault::passing(format!("{len} bytes came, not {expected}")))
            }
        }
    }

    /// Reads the whole object `name`, of at most `most` bytes, to memory.
    pub async fn read_all(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let mut retry = Retry::new(self, name);
        loop {
            let attempt = async {
                let mut answer = self.get(name, None, None).await?;
                let mut got = Vec::new();
                while let Some(bytes) = answer.bytes.next().await {
                    got.extend_from_slice(&bytes.map_err(|error| self.fault(name, &error))?);
                    if got.len() as u64 > most {
                        return Err(Fault::Lasting(Error::Answer {
                            object: self.object(name),
                            reason: format!("longer than {most} bytes"),
                        }));
                    }
                }
                match got.len() as u64 {
                    len if len < answer.len => Err(ended(len, answer.len)),
                    _ => Ok(got),
                }
            };
            match attempt.await {
                Ok(got) => return Ok(got),
                Err(fault) => retry.after(fault, 0).await?,
            }
        }
    }
}

/// The body `bytes`, which fails if too little of it comes in the time `limit`.
fn paced(
    bytes: BoxStream<'static, object_store::Result<Bytes>>,
    limit: Duration,
) -> BoxStream<'static, object_store::Result<Bytes>> {
    let next = async |(mut bytes, mut pace): (BoxStream<'static, _>, Pace)| {
        let began = Instant::now();
        let Some(chunk): Option<Bytes> = bytes.next().await.transpose()? else {
            return Ok(None);
        };
        pace.came(chunk.len(), began.elapsed())
            .map_err(|slow| object_store::Error::Generic {
                store: "tinyres",
                source: Box::new(HttpError::new(HttpErrorKind::Timeout, slow)),
            })?;
        Ok(Some((chunk, (bytes, pace))))
    };
    stream::try_unfold((bytes, Pace::new(limit)), next).boxed()
}

/// The fault of a body that is too short.
pub fn ended(got: u64, expected: u64) -> Fault {
    Fault::passing(format!("the store ended after {got} of {expected} bytes"))
}

/// The tries of one read.
pub struct Retry<'a> {
    store: &'a Store,
    name: &'a str,
    reached: u64,
    tries: u32,
    damaged: u32,
}

impl<'a> Retry<'a> {
    pub fn new(store: &'a Store, name: &'a str) -> Self {
        Self {
            store,
            name,
            reached: 0,
            tries: 0,
            damaged: 0,
        }
    }

    /// Waits until the next try after `fault`, when the read has reached `reached`. Fails if there is none.
    pub async fn after(&mut self, fault: Fault, reached: u64) -> Result<()> {
        if reached >= self.reached + STEP {
            (self.reached, self.tries, self.damaged) = (reached, 0, 0);
        }
        let object = || self.store.object(self.name);
        let pause = match fault {
            Fault::Lasting(error) => return Err(error),
            Fault::Damage(error) => {
                self.damaged += 1;
                if self.damaged > DAMAGE_TRIES {
                    return Err(Error::Damaged {
                        object: object(),
                        error: Box::new(error),
                        tries: self.damaged,
                    });
                }
                None
            }
            Fault::Passing { reason, .. } if self.tries >= self.store.patience.retries => {
                return Err(Error::Transfer {
                    object: object(),
                    reason,
                });
            }
            Fault::Passing { pause, .. } => pause,
        };
        let pause = pause.unwrap_or(FIRST_PAUSE * 2_u32.pow(self.tries.min(6)));
        tokio::time::sleep(pause).await;
        self.tries += 1;
        Ok(())
    }
}

/// The variable `name`, unless it is empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A builder with the settings of the environment, under the names of `object_store` and of the Azure command line.
fn azure() -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env();
    for (name, key) in [
        ("AZURE_STORAGE_ACCOUNT", AzureConfigKey::AccountName),
        ("AZURE_STORAGE_KEY", AzureConfigKey::AccessKey),
    ] {
        if let Some(value) = variable(name) {
            builder = builder.with_config(key, value);
        }
    }
    for (name, value) in variable("AZURE_STORAGE_CONNECTION_STRING")
        .iter()
        .flat_map(|text| text.split(';'))
        .filter_map(|field| field.split_once('='))
    {
        let key = match name.trim() {
            "AccountName" => AzureConfigKey::AccountName,
            "AccountKey" => AzureConfigKey::AccessKey,
            "SharedAccessSignature" => AzureConfigKey::SasKey,
            "BlobEndpoint" => AzureConfigKey::Endpoint,
            "UseDevelopmentStorage" => AzureConfigKey::UseEmulator,
            _ => continue,
        };
        builder = builder.with_config(key, value);
    }
    builder
}

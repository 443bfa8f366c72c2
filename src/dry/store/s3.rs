//! Segments as objects of a bucket: AWS S3, MinIO, Cloudflare R2, Ceph and others of that protocol.
//!
//! A segment is one PUT of at most 64 MiB, streamed from its file, so there are no parts to abort. What
//! is in flight is checked by the protocol's checksums where both sides know them, and by the records'
//! own in any case.

use std::io;
use std::path::Path;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Credentials, Region};
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::tls;

use super::super::config::{Checksums, S3Config};
use super::remote::{Listed, Remote, Tag};
use super::runtime::Remotely;

/// Where nothing names a region: what S3-compatible stores expect.
const REGION: &str = "us-east-1";
/// Attempts of one call, the first included; the pauses between them grow and vary.
const ATTEMPTS_MAX: u32 = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// One segment's upload, attempts included.
const PUT_TIMEOUT: Duration = Duration::from_secs(120);
/// Everything that no client waits for: list, delete, the manifest.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A bucket, or the part of it under a prefix.
pub(super) struct S3Store {
    client: Client,
    bucket: String,
    /// Empty or ends with a slash.
    prefix: String,
    place: String,
    read_timeout: Duration,
    remotely: Remotely,
}

impl S3Store {
    /// A client for the bucket; nothing is asked of it yet.
    pub(super) fn open(config: &S3Config, read_timeout: Duration) -> io::Result<S3Store> {
        S3Store::open_as(config, read_timeout, None)
    }

    /// [`S3Store::open`] as a given user: access key and secret key.
    pub(super) fn open_as(
        config: &S3Config,
        read_timeout: Duration,
        user: Option<[&str; 2]>,
    ) -> io::Result<S3Store> {
        let remotely = Remotely::start()?;
        let client = remotely.run(CALL_TIMEOUT, async {
            Ok(connect(config, read_timeout, user).await)
        })?;
        let prefix = match config.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(S3Store {
            client,
            bucket: config.bucket.clone(),
            prefix,
            place: config.to_string(),
            read_timeout,
            remotely,
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn get_range(&self, name: &str, at: u64, out: &mut [u8]) -> io::Result<()> {
        let last = at + out.len() as u64 - 1;
        let get = self.client.get_object().bucket(&self.bucket);
        let get = get.key(self.key(name)).range(format!("bytes={at}-{last}"));
        let mut got = get.send().await.map_err(|error| failed("get", error))?;
        let mut filled = 0;
        while let Some(bytes) = got.body.next().await {
            let bytes = bytes.map_err(io::Error::other)?;
            let Some(to) = out.get_mut(filled..filled + bytes.len()) else {
                return Err(io::Error::other("more bytes came than were asked for"));
            };
            to.copy_from_slice(&bytes);
            filled += bytes.len();
        }
        if filled < out.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

async fn connect(config: &S3Config, read_timeout: Duration, user: Option<[&str; 2]>) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::Ring,
        ))
        .build_https();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT.min(read_timeout))
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .sleep_impl(TokioSleep::new())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
        .timeout_config(timeouts);
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some([access_key, secret_key]) = user {
        let user = Credentials::new(access_key, secret_key, None, None, "given");
        loader = loader.credentials_provider(user);
    }
    let shared = loader.load().await;
    let mut settings =
        aws_sdk_s3::config::Builder::from(&shared).force_path_style(config.path_style);
    if shared.region().is_none() {
        settings = settings.region(Region::from_static(REGION));
    }
    if let Some(endpoint) = &config.endpoint {
        settings = settings.endpoint_url(endpoint);
    }
    if config.checksums == Checksums::WhenRequired {
        settings = settings
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    }
    Client::from_conf(settings.build())
}

impl Remote for S3Store {
    fn place(&self) -> &str {
        &self.place
    }

    fn check(&self) -> io::Result<()> {
        self.remotely.run(CALL_TIMEOUT, async {
            let list = self.client.list_objects_v2().bucket(&self.bucket);
            let listed = list.prefix(&self.prefix).max_keys(1).send().await;
            listed.map(drop).map_err(|error| failed("list", error))
        })
    }

    fn interrupt(&self) {
        self.remotely.interrupt();
    }

    fn put(&self, name: &str, file: &Path, bytes: u64) -> io::Result<()> {
        self.remotely.run(PUT_TIMEOUT, async {
            let body = ByteStream::from_path(file)
                .await
                .map_err(io::Error::other)?;
            let put = self.client.put_object().bucket(&self.bucket);
            let put = put.key(self.key(name)).content_length(bytes as i64);
            let put = put.body(body).send().await;
            put.map(drop).map_err(|error| failed("put", error))
        })
    }

    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        self.remotely.read(self.read_timeout, async || {
            self.get_range(name, at, out).await
        })
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.remotely.run(CALL_TIMEOUT, async {
            let delete = self.client.delete_object().bucket(&self.bucket);
            let deleted = delete.key(self.key(name)).send().await;
            match deleted.map_err(|error| failed("delete", error)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                deleted => deleted.map(drop),
            }
        })
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        self.remotely.run(CALL_TIMEOUT, async {
            let now = DateTime::from(std::time::SystemTime::now());
            let list = self.client.list_objects_v2().bucket(&self.bucket);
            let mut pages = list.prefix(&self.prefix).into_paginator().send();
            let mut all = Vec::new();
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| failed("list", error))?;
                all.extend(page.contents().iter().filter_map(|object| {
                    let name = object.key()?.strip_prefix(&self.prefix)?.to_owned();
                    let written = object.last_modified()?.secs();
                    let age = now.secs().saturating_sub(written).max(0) as u64;
                    Some(Listed {
                        name,
                        age: Duration::from_secs(age),
                    })
                }));
            }
            Ok(all)
        })
    }

    fn get(&self, name: &str) -> io::Result<Option<(Vec<u8>, Tag)>> {
        self.remotely.run(CALL_TIMEOUT, async {
            let get = self.client.get_object().bucket(&self.bucket);
            let got = get.key(self.key(name)).send().await;
            let got = match got.map_err(|error| failed("get", error)) {
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            };
            let tag = Tag(got.e_tag().unwrap_or_default().to_owned());
            let bytes = got.body.collect().await.map_err(io::Error::other)?;
            Ok(Some((bytes.to_vec(), tag)))
        })
    }

    fn replace(&self, name: &str, bytes: Vec<u8>, before: Option<&Tag>) -> io::Result<Option<Tag>> {
        // A store without conditional writes ignores the condition: this look is what is left then.
        if self.get(name)?.map(|(_, tag)| tag).as_ref() != before {
            return Ok(None);
        }
        self.remotely.run(CALL_TIMEOUT, async {
            let put = self.client.put_object().bucket(&self.bucket);
            let put = put.key(self.key(name)).body(ByteStream::from(bytes));
            let put = match before {
                Some(Tag(tag)) => put.if_match(tag),
                None => put.if_none_match("*"),
            };
            match put.send().await.map_err(|error| failed("put", error)) {
                Ok(put) => Ok(Some(Tag(put.e_tag().unwrap_or_default().to_owned()))),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(error),
            }
        })
    }
}

/// What was tried and all that is known about why it failed, with the kinds that callers look at.
fn failed<E>(tried: &str, error: SdkError<E, HttpResponse>) -> io::Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    let status = error
        .raw_response()
        .map(|response| response.status().as_u16());
    let kind = match (status, error.code()) {
        // Only a missing object: a missing bucket says nothing about it.
        (_, Some("NoSuchKey")) => io::ErrorKind::NotFound,
        (Some(409 | 412), _) => io::ErrorKind::AlreadyExists,
        (Some(401 | 403), _) => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("{tried}: {}", said(&error, status)))
}

/// What a store said, or what kept it from saying anything, in one line.
fn said<E>(error: &SdkError<E, HttpResponse>, status: Option<u16>) -> String
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    if let Some(code) = error.code() {
        return match error.message() {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        };
    }
    if let Some(status) = status {
        return format!("answered with status {status}");
    }
    let mut said = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        said.push_str(": ");
        said.push_str(&inner.to_string());
        source = inner.source();
    }
    said
}

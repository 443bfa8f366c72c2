//! Segments as files of MongoDB's GridFS: a document in `BUCKET.files`, its bytes in `BUCKET.chunks`.
//!
//! A file's `_id` is its name, so that a range is one query of the chunks. The chunks come first and are
//! counted before the file's document makes them one; chunks without that document are an orphan, and
//! are listed as one. Every chunk carries the date of its file: a TTL index deletes both should no
//! tiercache be left to do it.

use std::collections::HashMap;
use std::fs::File;
use std::future::IntoFuture;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{
    Acknowledgment, ClientOptions, IndexOptions, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::{Client, Collection, IndexModel};

use super::super::config::MongoDbConfig;
use super::remote::{Listed, Remote, Tag};
use super::runtime::Remotely;

/// Bytes of a chunk, GridFS's own default.
const CHUNK_BYTES: usize = 255 << 10;
/// Chunks that are sent at once: below the 16 MiB that everything in MongoDB keeps to.
const BATCH_CHUNKS: usize = 32;
/// Largest manifest: one document.
const MANIFEST_BYTES_MAX: usize = 15 << 20;
/// Connections at once: more than there are threads that call. The driver's own bound is 10.
const CONNECTIONS_MAX: u32 = 40;
/// How long a driver looks for a server that answers.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(5);
const PUT_TIMEOUT: Duration = Duration::from_secs(120);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Segments go when nobody used them for the residence time; the database's own deletion comes later.
const TTL_SLACK: Duration = Duration::from_secs(86_400);
const TTL_INDEX: &str = "tiercache_ttl";
/// MongoDB's code of a key that is there already.
const DUPLICATE_KEY: i32 = 11_000;

/// A bucket of GridFS.
pub(super) struct GridFs {
    files: Collection<Document>,
    chunks: Collection<Document>,
    manifests: Collection<Document>,
    place: String,
    read_timeout: Duration,
    /// Residence time in dry.
    ttl: Duration,
    remotely: Remotely,
}

impl GridFs {
    /// A client for the database; nothing is asked of it yet. `ttl` is the residence time in dry.
    ///
    /// # Errors
    /// A bad connection string, or one whose names cannot be resolved.
    pub(super) fn open(
        config: &MongoDbConfig,
        ttl: Duration,
        read_timeout: Duration,
    ) -> io::Result<GridFs> {
        let remotely = Remotely::start()?;
        let client = remotely.run(CALL_TIMEOUT, async {
            let mut options = tried(
                "read the connection string",
                ClientOptions::parse(&config.uri),
            )
            .await?;
            options
                .server_selection_timeout
                .get_or_insert(SELECTION_TIMEOUT);
            options.max_pool_size.get_or_insert(CONNECTIONS_MAX);
            // Whatever the connection string says: with less, what was read or written may be undone, and an older
            // manifest be believed.
            options.write_concern =
                Some(WriteConcern::builder().w(Acknowledgment::Majority).build());
            options.selection_criteria =
                Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
            Client::with_options(options).map_err(|error| failed("connect", &error))
        })?;
        let database = client.database(&config.database);
        let collection = |name: &str| database.collection(&format!("{}.{name}", config.bucket));
        Ok(GridFs {
            files: collection("files"),
            chunks: collection("chunks"),
            manifests: collection("manifests"),
            place: config.to_string(),
            read_timeout,
            ttl,
            remotely,
        })
    }

    async fn index(&self) -> io::Result<()> {
        let unique = IndexOptions::builder().unique(true).build();
        let chunk_order = IndexModel::builder()
            .keys(doc! {"files_id": 1, "n": 1})
            .options(unique)
            .build();
        let names = IndexModel::builder()
            .keys(doc! {"filename": 1, "uploadDate": 1})
            .build();
        tried(
            "make an index of chunks",
            self.chunks.create_index(chunk_order),
        )
        .await?;
        tried("make an index of files", self.files.create_index(names)).await?;
        for collection in [&self.files, &self.chunks] {
            let options = IndexOptions::builder()
                .name(TTL_INDEX.to_owned())
                .expire_after(self.ttl + TTL_SLACK)
                .build();
            let by_date = IndexModel::builder()
                .keys(doc! {"uploadDate": 1})
                .options(options)
                .build();
            if collection.create_index(by_date.clone()).await.is_err() {
                // The residence time was another one at the last start.
                tried("drop the TTL index", collection.drop_index(TTL_INDEX)).await?;
                tried("make the TTL index", collection.create_index(by_date)).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        tried("delete a file", self.files.delete_one(doc! {"_id": name})).await?;
        tried(
            "delete chunks",
            self.chunks.delete_many(doc! {"files_id": name}),
        )
        .await?;
        Ok(())
    }

    async fn put_chunks(
        &self,
        name: &str,
        file: &mut File,
        date: DateTime,
    ) -> io::Result<(u64, u64)> {
        let (mut number, mut length) = (0, 0);
        loop {
            let mut batch = Vec::new();
            while batch.len() < BATCH_CHUNKS {
                let mut bytes = Vec::with_capacity(CHUNK_BYTES);
                file.by_ref()
                    .take(CHUNK_BYTES as u64)
                    .read_to_end(&mut bytes)?;
                if bytes.is_empty() {
                    break;
                }
                length += bytes.len() as u64;
                batch.push(doc! {
                    "files_id": name, "n": number as i32, "data": binary(bytes), "uploadDate": date,
                });
                number += 1;
            }
            if batch.is_empty() {
                return Ok((number, length));
            }
            tried("insert chunks", self.chunks.insert_many(batch)).await?;
        }
    }

    async fn read_range(&self, name: &str, at: u64, out: &mut [u8]) -> io::Result<()> {
        let chunk = CHUNK_BYTES as u64;
        let end = at + out.len() as u64;
        let (first, last) = (at / chunk, (end - 1) / chunk);
        let wanted = doc! {"files_id": name, "n": {"$gte": first as i32, "$lte": last as i32}};
        let found = self.chunks.find(wanted).sort(doc! {"n": 1});
        let mut found = tried("read chunks", found).await?;
        let mut number = first;
        while tried("read chunks", found.advance()).await? {
            let chunk_document: Document = found
                .deserialize_current()
                .map_err(|error| failed("read chunks", &error))?;
            let bytes = bytes_of(&chunk_document, "data")?;
            let start = number * chunk;
            let (from, to) = (at.max(start), end.min(start + chunk));
            let part = bytes.get((from - start) as usize..(to - start) as usize);
            let (Some(part), Ok(n)) = (part, chunk_document.get_i32("n")) else {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("chunk {number} of {name} is too short"),
                ));
            };
            if n as u64 != number {
                break;
            }
            out[(from - at) as usize..(to - at) as usize].copy_from_slice(part);
            number += 1;
        }
        if number > last {
            return Ok(());
        }
        let file = tried("read a file", self.files.find_one(doc! {"_id": name})).await?;
        Err(io::Error::new(
            match file {
                Some(_) => io::ErrorKind::UnexpectedEof,
                None => io::ErrorKind::NotFound,
            },
            format!("chunk {number} of {name} is missing"),
        ))
    }

    /// The names of all files with their dates.
    async fn files(&self) -> io::Result<HashMap<String, DateTime>> {
        let mut dates = HashMap::new();
        let wanted = self.files.find(doc! {});
        let wanted = wanted.projection(doc! {"_id": 1, "uploadDate": 1});
        let mut found = tried("list files", wanted).await?;
        while tried("list files", found.advance()).await? {
            let file: Document = found
                .deserialize_current()
                .map_err(|error| failed("list files", &error))?;
            if let (Ok(name), Ok(date)) = (file.get_str("_id"), file.get_datetime("uploadDate")) {
                dates.insert(name.to_owned(), *date);
            }
        }
        Ok(dates)
    }

    /// The names of chunks that belong to no file, with their dates. The names come from the index
    /// alone: looking at the chunks themselves would read the whole store.
    async fn orphans(
        &self,
        files: &HashMap<String, DateTime>,
    ) -> io::Result<Vec<(String, DateTime)>> {
        let names = self.chunks.distinct("files_id", doc! {});
        let names = tried("list chunks", names).await?;
        let mut orphans = Vec::new();
        let known = |name: &&str| !files.contains_key(*name);
        for name in names.iter().filter_map(Bson::as_str).filter(known) {
            let first = self.chunks.find_one(doc! {"files_id": name});
            let first = first.sort(doc! {"n": 1}).projection(doc! {"uploadDate": 1});
            let first = tried("read a chunk's date", first).await?;
            // It may have been deleted, or have become a file, in between: neither is an orphan.
            let date = first.and_then(|chunk| chunk.get_datetime("uploadDate").ok().copied());
            orphans.extend(date.map(|date| (name.to_owned(), date)));
        }
        Ok(orphans)
    }
}

impl Remote for GridFs {
    fn place(&self) -> &str {
        &self.place
    }

    fn check(&self) -> io::Result<()> {
        self.remotely.run(CALL_TIMEOUT, self.index())
    }

    fn interrupt(&self) {
        self.remotely.interrupt();
    }

    fn put(&self, name: &str, file: &Path, bytes: u64) -> io::Result<()> {
        self.remotely.run(PUT_TIMEOUT, async {
            // What an attempt before this one left.
            self.remove(name).await?;
            let date = DateTime::now();
            let mut file = File::open(file)?;
            let (chunks, length) = self.put_chunks(name, &mut file, date).await?;
            let stored = self.chunks.count_documents(doc! {"files_id": name});
            let stored = tried("count chunks", stored).await?;
            if stored != chunks || length != bytes {
                return Err(io::Error::other(format!(
                    "{stored} of {chunks} chunks and {length} of {bytes} bytes are there"
                )));
            }
            let document = doc! {
                "_id": name, "length": length as i64, "chunkSize": CHUNK_BYTES as i32,
                "uploadDate": date, "filename": name,
            };
            tried("insert a file", self.files.insert_one(document)).await?;
            Ok(())
        })
    }

    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        self.remotely.read(self.read_timeout, async || {
            self.read_range(name, at, out).await
        })
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.remotely.run(CALL_TIMEOUT, self.remove(name))
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        self.remotely.run(CALL_TIMEOUT, async {
            let mut dates = self.files().await?;
            let orphans = self.orphans(&dates).await?;
            dates.extend(orphans);
            let age = |date: DateTime| {
                let written = date.to_system_time();
                SystemTime::now()
                    .duration_since(written)
                    .unwrap_or_default()
            };
            let all = dates.into_iter().map(|(name, date)| Listed {
                name,
                age: age(date),
            });
            Ok(all.collect())
        })
    }

    fn get(&self, name: &str) -> io::Result<Option<(Vec<u8>, Tag)>> {
        self.remotely.run(CALL_TIMEOUT, async {
            let found = self.manifests.find_one(doc! {"_id": name});
            let Some(found) = tried("read the manifest", found).await? else {
                return Ok(None);
            };
            let tag = found.get_str("tag").unwrap_or_default().to_owned();
            Ok(Some((bytes_of(&found, "data")?.to_vec(), Tag(tag))))
        })
    }

    fn replace(&self, name: &str, bytes: Vec<u8>, before: Option<&Tag>) -> io::Result<Option<Tag>> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(io::Error::other(
                "the manifest is too large for one document",
            ));
        }
        self.remotely.run(CALL_TIMEOUT, async {
            // Two contents of one length and checksum within a microsecond do not come up.
            let now = crate::clock::wall_us();
            let tag = format!("{now:x}-{:x}-{:08x}", bytes.len(), crc32fast::hash(&bytes));
            let content = doc! {"tag": &tag, "data": binary(bytes)};
            let won = match before {
                Some(Tag(before)) => {
                    let wanted = doc! {"_id": name, "tag": before};
                    let update = self.manifests.update_one(wanted, doc! {"$set": content});
                    tried("write the manifest", update).await?.matched_count == 1
                }
                None => {
                    let mut document = doc! {"_id": name};
                    document.extend(content);
                    match self.manifests.insert_one(document).await {
                        Ok(_) => true,
                        Err(error) if is_duplicate(&error) => false,
                        Err(error) => return Err(failed("write the manifest", &error)),
                    }
                }
            };
            Ok(won.then_some(Tag(tag)))
        })
    }
}

fn binary(bytes: Vec<u8>) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Generic,
        bytes,
    })
}

fn bytes_of<'a>(document: &'a Document, field: &str) -> io::Result<&'a [u8]> {
    let bytes = document.get_binary_generic(field);
    let bytes = bytes.map_err(|_| io::Error::other(format!("a document has no field {field}")));
    bytes.map(Vec::as_slice)
}

fn is_duplicate(error: &Error) -> bool {
    matches!(
        &*error.kind,
        ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == DUPLICATE_KEY
    )
}

async fn tried<T>(what: &str, call: impl IntoFuture<Output = Result<T, Error>>) -> io::Result<T> {
    call.await.map_err(|error| failed(what, &error))
}

fn failed(tried: &str, error: &Error) -> io::Error {
    io::Error::other(format!("{tried}: {error}"))
}

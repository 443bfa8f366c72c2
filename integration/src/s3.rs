//! An S3 server in this process: s3s over a folder, with signatures checked, a log of requests, and faults to order.
//!
//! It speaks the real protocol on a real socket; only where its bytes lie is simpler than at a provider.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;

use crate::random::Random;
use crate::remote::Place;

/// The user that the server knows.
pub const ACCESS_KEY: &str = "tiercache-test";
/// The user's password.
pub const SECRET_KEY: &str = "not-a-secret";
/// The bucket that exists.
pub const BUCKET: &str = "bucket";

/// Bytes of a manifest before its segments: a magic word, and the numbers of the store, the second of which names it.
const MANIFEST_HEAD_BYTES: usize = 19 * 8;

/// A running server; ends when dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    root: TempDir,
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What the server was asked for, faults included.
#[derive(Debug, Default)]
pub struct Log {
    /// PUT requests.
    pub puts: AtomicU64,
    /// GET requests of a range.
    pub range_gets: AtomicU64,
    /// Other GET requests: lists and whole objects.
    pub other_gets: AtomicU64,
    /// DELETE requests.
    pub deletes: AtomicU64,
    /// Requests that were answered wrongly on purpose.
    pub faults: AtomicU64,
}

/// How many of 1000 requests go wrong, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// Answered with 500 or 503; every second one took effect.
    pub errors: u64,
    /// Not answered for this long.
    pub timeouts: u64,
    /// How long a request that times out is left without an answer.
    pub timeout: Duration,
    /// The connection is closed without an answer; every second one took effect.
    pub resets: u64,
    /// One bit of the answer is wrong.
    pub flips: u64,
    /// The connection is closed in the middle of the answer.
    pub cuts: u64,
}

#[derive(Debug)]
struct Shared {
    log: Log,
    faults: std::sync::Mutex<(Faults, Random)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Error { after: bool },
    Timeout(Duration),
    Reset { after: bool },
    Flip(u64),
    Cut,
}

impl S3Server {
    /// Starts a server with one empty bucket on a free port.
    ///
    /// # Panics
    /// When no port or no folder can be had.
    pub fn start(seed: u64) -> S3Server {
        let root = TempDir::new().expect("a temporary folder can be made");
        std::fs::create_dir(root.path().join(BUCKET)).expect("a folder can be made");
        let files = FileSystem::new(root.path()).expect("the folder is there");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = builder.build();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("threads can be started");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a loopback port is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            log: Log::default(),
            faults: std::sync::Mutex::new((Faults::default(), Random::new(seed))),
        });
        runtime.spawn(accept(listener, service, Arc::clone(&shared)));
        S3Server {
            address,
            root,
            shared,
            runtime: Some(runtime),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The arguments and the environment of a tiercache whose dry tier is under a prefix of the bucket, reached at
    /// `address`: the server's own or that of something in front of it.
    pub fn place(&self, prefix: &str, address: SocketAddr) -> Place {
        let arguments = [
            "--dry",
            &format!("s3://{BUCKET}/{prefix}"),
            "--s3-endpoint",
            &format!("http://{address}"),
            "--s3-path-style",
        ];
        Place::new(&arguments).with(S3Server::environment())
    }

    /// The URL that clients are given.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it was asked for.
    pub fn log(&self) -> &Log {
        &self.shared.log
    }

    /// Orders faults from now on.
    ///
    /// # Panics
    /// Never: nobody panics while holding the lock.
    pub fn order(&self, faults: Faults) {
        self.shared.faults.lock().expect("nobody panicked").0 = faults;
    }

    /// The names of all objects under a prefix of the bucket, sorted.
    ///
    /// # Panics
    /// When the folder cannot be read.
    pub fn objects(&self, prefix: &str) -> Vec<String> {
        let folder: PathBuf = self.root.path().join(BUCKET).join(prefix);
        let mut names = match folder.read_dir() {
            Ok(entries) => entries.map(file_name).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => panic!("list {}: {error}", folder.display()),
        };
        names.sort();
        names
    }

    /// The names of the objects under a prefix that the manifest there names, sorted.
    ///
    /// # Panics
    /// When there is no manifest or it is not one.
    pub fn named_by_manifest(&self, prefix: &str) -> Vec<String> {
        let path = self.root.path().join(BUCKET).join(prefix).join("manifest");
        let bytes = std::fs::read(path).expect("a clean stop leaves a manifest");
        let mut words = bytes[..MANIFEST_HEAD_BYTES].chunks_exact(8);
        let uuid = words.nth(2).expect("a manifest has a head");
        let uuid = u64::from_le_bytes(uuid.try_into().expect("8 bytes"));
        let mut numbers = bytes[MANIFEST_HEAD_BYTES..]
            .chunks_exact(4)
            .map(|number| u32::from_le_bytes(number.try_into().expect("4 bytes")));
        let mut next = || numbers.next().expect("a manifest is whole");
        let count = next();
        let entry = |_| {
            let (segment, _bytes, dead) = (next(), next(), next());
            for _ in 0..dead {
                next();
            }
            format!("{uuid:016x}-{segment:09}")
        };
        let mut names: Vec<String> = (0..count).map(entry).collect();
        names.sort();
        names
    }

    /// The user's access key and secret key.
    pub fn credentials() -> [&'static str; 2] {
        [ACCESS_KEY, SECRET_KEY]
    }

    /// What a client's environment must have to be that user.
    pub fn environment() -> [(&'static str, &'static str); 3] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Connections that a client keeps open would be waited for.
            runtime.shutdown_background();
        }
    }
}

fn file_name(entry: io::Result<std::fs::DirEntry>) -> String {
    let path = entry.expect("the folder stays").path();
    let name = Path::new(&path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

async fn accept(listener: tokio::net::TcpListener, service: S3Service, shared: Arc<Shared>) {
    while let Ok((socket, _)) = listener.accept().await {
        let service = Watched {
            service: service.clone(),
            shared: Arc::clone(&shared),
        };
        // A reply's head and body are two writes: the second would wait for the first to be acknowledged.
        let _ = socket.set_nodelay(true);
        tokio::spawn(async move {
            let http = Builder::new(TokioExecutor::new());
            // A connection that breaks is its client's affair.
            let _ = http.serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// The service, with its log and its faults.
#[derive(Clone)]
struct Watched {
    service: S3Service,
    shared: Arc<Shared>,
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("a reset was ordered")
    }
}

impl std::error::Error for Reset {}

type Answer = Response<http_body_util::combinators::UnsyncBoxBody<Bytes, s3s::StdError>>;

impl hyper::service::Service<Request<Incoming>> for Watched {
    type Response = Answer;
    type Error = Reset;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Reset>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let watched = self.clone();
        Box::pin(watched.answer(request))
    }
}

impl Watched {
    async fn answer(self, request: Request<Incoming>) -> Result<Answer, Reset> {
        self.shared.log.count(&request);
        let fault = self.shared.next_fault();
        let (error, reset) = match fault {
            Fault::Error { after: false } => return Ok(unavailable()),
            Fault::Reset { after: false } => return Err(Reset),
            Fault::Timeout(length) => {
                tokio::time::sleep(length).await;
                return Err(Reset);
            }
            Fault::Error { .. } => (true, false),
            Fault::Reset { .. } => (false, true),
            Fault::None | Fault::Flip(_) | Fault::Cut => (false, false),
        };
        let answered = hyper::service::Service::call(&self.service, request).await;
        let Ok(answer) = answered else {
            return Err(Reset);
        };
        if reset {
            return Err(Reset);
        }
        if error {
            return Ok(unavailable());
        }
        let (head, body) = answer.into_parts();
        if !matches!(fault, Fault::Flip(_) | Fault::Cut) {
            return Ok(Response::from_parts(head, body.boxed_unsync()));
        }
        let Ok(body) = body.collect().await else {
            return Err(Reset);
        };
        let mut bytes = body.to_bytes().to_vec();
        if fault == Fault::Cut && !bytes.is_empty() {
            let whole = bytes.len() as u64;
            bytes.truncate(bytes.len() / 2);
            let body = CutShort {
                rest: Some(bytes.into()),
                whole,
            };
            return Ok(Response::from_parts(head, body.boxed_unsync()));
        }
        if let (Fault::Flip(bit), false) = (fault, bytes.is_empty()) {
            let at = (bit / 8) as usize % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
        }
        let body = http_body_util::Full::from(bytes).map_err(never);
        Ok(Response::from_parts(head, body.boxed_unsync()))
    }
}

/// The beginning of an answer that announced more.
struct CutShort {
    rest: Option<Bytes>,
    whole: u64,
}

impl hyper::body::Body for CutShort {
    type Data = Bytes;
    type Error = s3s::StdError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, s3s::StdError>>> {
        let frame = self.rest.take().map(Frame::data);
        Poll::Ready(Some(frame.ok_or_else(|| Reset.into())))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.whole)
    }
}

fn never(never: Infallible) -> s3s::StdError {
    match never {}
}

fn unavailable() -> Answer {
    let body = http_body_util::Empty::new().map_err(never);
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer
}

impl Log {
    fn count(&self, request: &Request<Incoming>) {
        let ranged = request.headers().contains_key("range");
        let counter = match request.method().as_str() {
            "PUT" => &self.puts,
            "GET" if ranged => &self.range_gets,
            "DELETE" => &self.deletes,
            _ => &self.other_gets,
        };
        counter.fetch_add(1, SeqCst);
    }
}

impl Shared {
    fn next_fault(&self) -> Fault {
        let mut ordered = self.faults.lock().expect("nobody panicked");
        let (faults, random) = &mut *ordered;
        if *faults == Faults::default() {
            return Fault::None;
        }
        let after = random.below(2) == 1;
        let mut dice = random.below(1000);
        let bit = random.below(1 << 30);
        let kinds = [
            (faults.errors, Fault::Error { after }),
            (faults.timeouts, Fault::Timeout(faults.timeout)),
            (faults.resets, Fault::Reset { after }),
            (faults.flips, Fault::Flip(bit)),
            (faults.cuts, Fault::Cut),
        ];
        for (share, fault) in kinds {
            if dice < share {
                self.log.faults.fetch_add(1, SeqCst);
                return fault;
            }
            dice -= share;
        }
        Fault::None
    }
}

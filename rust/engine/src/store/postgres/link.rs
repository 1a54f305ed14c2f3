//! The connection. It is made when it is needed, dropped when anything about it is in doubt, and made again after a
//! pause that grows with every failure, and is a little different for every engine.
//!
//! A statement is waited for as long as its patience lasts. It is never cancelled: a server that is cancelled while it
//! waits for its standby keeps the commit to itself and says that it was done.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls};

use super::address::Address;
use super::statements::{self, Statements};
use crate::error::Error;
use crate::limits::{STORE_CONNECT, STORE_PATIENCE, STORE_RETRY, STORE_RETRY_MOST};
use crate::store::sealed;

/// Why a statement was not done.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection is gone, or was given up: what was under way may be done or not.
    Broken(String),
    /// The server said no: nothing of the statement was done.
    Refused(SqlState, String),
}

/// What a store says of itself: schema version, id, proof of the operator's key.
pub(super) type Greeting = Option<(i32, Vec<u8>, Vec<u8>)>;

/// A connection that is there, with its statements.
pub(super) struct Up {
    pub(super) client: Client,
    pub(super) statements: Statements,
    /// The server gave a warning: the only ones that there are for our statements say that a commit may be on one
    /// server alone.
    warned: Arc<AtomicBool>,
}

enum State {
    Up(Box<Up>),
    Down { failures: u32, until: Instant, why: String },
}

pub(super) struct Link {
    pub(super) address: Address,
    /// None once dropped.
    runtime: Option<Runtime>,
    state: State,
    /// The process that opened the store.
    process: u32,
}

impl Drop for Link {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // The event loop of a fork is the parent's: what were unregistered here would be unregistered there.
            std::mem::forget(self.runtime.take());
        }
    }
}

impl Link {
    pub(super) fn new(address: Address) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::Store(format!("no event loop is to be had: {error}")))?;
        let state = State::Down { failures: 0, until: Instant::now(), why: "not connected yet".into() };
        Ok(Self { address, runtime: Some(runtime), state, process: std::process::id() })
    }

    /// Whether there is a connection, as far as is known.
    pub(super) fn is_up(&mut self) -> bool {
        let State::Up(up) = &self.state else { return false };
        // A turn of the event loop: a server that went away while nobody called is noticed before a statement is
        // given to it, whose end would then not be known.
        runtime(&self.runtime).block_on(async {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        });
        if up.client.is_closed() {
            self.give_up("the server closed the connection");
            return false;
        }
        true
    }

    /// Connects, unless the pause after the last failure is not over. `prepare` sees what is at the other end, before
    /// statements are prepared for it.
    ///
    /// # Errors
    /// [`Error::Busy`] if there is no connection to be had; what `prepare` says.
    pub(super) fn connect(
        &mut self,
        prepare: impl AsyncFnOnce(&Client, Greeting) -> Result<(), Attempt>,
    ) -> Result<(), Error> {
        let failures = match &self.state {
            State::Up(_) => 0,
            State::Down { until, why, .. } if Instant::now() < *until => return Err(self.unreachable(why)),
            State::Down { failures, .. } => *failures,
        };
        let (address, runtime) = (&self.address, runtime(&self.runtime));
        // Every host may take its time.
        let hosts = address.config.get_hosts().len().max(address.config.get_hostaddrs().len()).max(1);
        let patience = STORE_CONNECT * u32::try_from(hosts).unwrap_or(u32::MAX) + STORE_PATIENCE;
        let attempt = runtime.block_on(async {
            let attempt = tokio::time::timeout(patience, connected(address, prepare)).await;
            attempt.unwrap_or_else(|_| Err(Attempt::Failed(format!("no answer in {} s", patience.as_secs()))))
        });
        match attempt {
            Ok(up) => {
                self.state = State::Up(Box::new(up));
                Ok(())
            }
            Err(Attempt::Said(error)) => {
                self.down(failures, error.to_string());
                Err(error)
            }
            Err(Attempt::Failed(why)) => {
                let error = self.unreachable(&why);
                self.down(failures, why);
                Err(error)
            }
        }
    }

    fn down(&mut self, failures: u32, why: String) {
        let pause = STORE_RETRY_MOST.min(STORE_RETRY * 2_u32.saturating_pow(failures.min(16)));
        let mut random = [0; 2];
        // Where no randomness is to be had, engines come back together.
        let _ = sealed::random(&mut random);
        let jitter = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
        let until = Instant::now() + pause.mul_f64(0.5 + 0.5 * jitter);
        self.state = State::Down { failures: failures.saturating_add(1), until, why };
    }

    /// Drops the connection; the next call may make another at once.
    pub(super) fn give_up(&mut self, why: &str) {
        self.state = State::Down { failures: 0, until: Instant::now(), why: why.to_owned() };
    }

    fn unreachable(&self, why: &str) -> Error {
        let text = format!("{} cannot be reached ({why}): nothing has left; call again", self.address.shown);
        Error::Busy(text.replace(['\n', '\r'], " "))
    }

    /// Does something with the connection, which is dropped where it fails.
    pub(super) fn ask<T>(
        &mut self,
        patience: Duration,
        work: impl AsyncFnOnce(&Up) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Trouble> {
        let up = match &self.state {
            State::Up(up) => up,
            State::Down { why, .. } => return Err(Trouble::Broken(why.clone())),
        };
        up.warned.store(false, Ordering::SeqCst);
        let ended = runtime(&self.runtime).block_on(async { tokio::time::timeout(patience, work(up)).await });
        let trouble = match ended {
            Err(_) => Trouble::Broken(format!("no answer in {} s", patience.as_secs())),
            Ok(_) if up.warned.load(Ordering::SeqCst) => {
                Trouble::Broken("the server did not wait for its standby".to_owned())
            }
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => trouble(&error),
        };
        if let Trouble::Broken(why) = &trouble {
            let why = why.clone();
            self.give_up(&why);
        }
        Err(trouble)
    }
}

fn runtime(runtime: &Option<Runtime>) -> &Runtime {
    runtime.as_ref().expect("it goes when the link is dropped")
}

/// How an attempt to connect failed.
pub(super) enum Attempt {
    /// There is no connection.
    Failed(String),
    /// There is one, to something that is not our store.
    Said(Error),
}

impl From<tokio_postgres::Error> for Attempt {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(words(&error))
    }
}

async fn connected(
    address: &Address,
    prepare: impl AsyncFnOnce(&Client, Greeting) -> Result<(), Attempt>,
) -> Result<Up, Attempt> {
    let warned = Arc::new(AtomicBool::new(false));
    let client = match &address.tls {
        None => {
            let (client, connection) = address.config.connect(NoTls).await?;
            tokio::spawn(drive(connection, Arc::clone(&warned)));
            client
        }
        Some(tls) => {
            let (client, connection) = address.config.connect(tls.clone()).await?;
            tokio::spawn(drive(connection, Arc::clone(&warned)));
            client
        }
    };
    client.batch_execute(statements::SESSION).await?;
    let greeting = match client.query_opt(statements::GREETING, &[]).await {
        Ok(row) => row.map(|row| Ok::<_, tokio_postgres::Error>((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))),
        Err(error) if matches!(error.code(), Some(&SqlState::UNDEFINED_TABLE | &SqlState::INVALID_SCHEMA_NAME)) => None,
        Err(error) => return Err(error.into()),
    };
    prepare(&client, greeting.transpose()?).await?;
    let statements = Statements::prepare(&client).await?;
    Ok(Up { client, statements, warned })
}

/// Carries the connection's messages until it ends; notes warnings before the answers that come behind them.
async fn drive<S, T>(connection: Connection<S, T>, warned: Arc<AtomicBool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = pin!(connection);
    while let Some(Ok(message)) = poll_fn(|cx| connection.as_mut().poll_message(cx)).await {
        if let AsyncMessage::Notice(notice) = message {
            // A severity that cannot be told is none that is harmless.
            let harmless = [Severity::Log, Severity::Debug, Severity::Info, Severity::Notice];
            if !notice.parsed_severity().is_some_and(|severity| harmless.contains(&severity)) {
                warned.store(true, Ordering::SeqCst);
            }
        }
    }
}

fn trouble(error: &tokio_postgres::Error) -> Trouble {
    let Some(refusal) = error.as_db_error() else { return Trouble::Broken(words(error)) };
    // A session that ends says nothing of the commit that it was in.
    if refusal.parsed_severity() != Some(Severity::Error) {
        return Trouble::Broken(words(error));
    }
    Trouble::Refused(refusal.code().clone(), words(error))
}

/// An error with its cause, in a line.
fn words(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text = format!("{text}: {deeper}");
        cause = deeper.source();
    }
    text.replace(['\n', '\r'], " ")
}

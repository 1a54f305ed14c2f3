//! PostgreSQL servers for tests: on loopback, in a folder of their own, gone when the tests are.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// Above what a server needs to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the server when the tests do, however they do: it reads until they are gone.
const WATCH: &str = r#""$@" & server=$!; cat > /dev/null; kill -QUIT $server; wait $server"#;

const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 16MB
fsync = off
wal_keep_size = 64MB
hot_standby = on
wal_retrieve_retry_interval = 100ms
wal_receiver_timeout = 5s
";

/// The newest PostgreSQL of this machine.
fn binaries() -> Option<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .collect();
    folders.sort();
    let in_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let mut folders = folders.into_iter().rev().map(|(_, folder)| folder).chain(in_path);
    folders.find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// The binaries, or None where tests are to be left out: a machine without PostgreSQL, but not one that checks changes.
pub(crate) fn available() -> Option<PathBuf> {
    let found = binaries();
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed: apt-get install postgresql");
        eprintln!("left out: PostgreSQL is not installed");
    }
    found
}

/// A user that may run the server: it refuses root.
fn user() -> Option<u32> {
    if fs::metadata("/proc/self").map_or(1, |own| own.uid()) != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let id = |name: &str| {
        users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":x:")?.split(':').next()?.parse().ok())
    };
    id("postgres").or_else(|| id("nobody"))
}

fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = user() {
        command.uid(user);
    }
    command.current_dir("/").env_remove("PGDATA");
    command
}

/// A folder that the server's user owns.
fn folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("interlane-postgres-").tempdir().unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&folder, user(), None).unwrap();
    folder
}

/// A port of loopback that nobody else is given while this lives, whether the server runs or not: neither to listen at
/// nor to connect from. So no client of one server ever meets another.
struct Port {
    number: u16,
    /// Bound to the port and not listening. Where both say so, Linux lets the server bind to it too, and listen.
    _bound: Option<TcpSocket>,
}

impl Port {
    fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let number = socket.local_addr().unwrap().port();
        // Other systems do not let it: there the port is free again, and a race.
        Self { number, _bound: cfg!(target_os = "linux").then_some(socket) }
    }
}

/// A server that runs.
pub(crate) struct Server {
    bin: PathBuf,
    data: PathBuf,
    pub(crate) port: u16,
    watch: Child,
    databases: AtomicU32,
    /// Behind the server, as the folder is, so that they go after it.
    _reserved: Port,
    _folder: Option<TempDir>,
}

impl Server {
    /// One on its own.
    pub(crate) fn start(bin: &Path) -> Self {
        let folder = folder();
        let data = initialized(bin, folder.path());
        Self::run(bin, data, Port::reserve(), Some(folder))
    }

    /// One whose commits wait for a standby, and that standby.
    pub(crate) fn start_pair(bin: &Path) -> (Self, Self) {
        let folder = folder();
        let data = initialized(bin, folder.path());
        let standby = folder.path().join("standby");
        // A cluster that was shut down cleanly is a standby's base backup.
        assert!(command("cp").arg("-r").args([&data, &standby]).status().unwrap().success());
        fs::set_permissions(&standby, fs::Permissions::from_mode(0o700)).unwrap();
        let port = Port::reserve();
        append(&data, "synchronous_standby_names = 'standby'\n");
        append(
            &standby,
            &format!(
                "primary_conninfo = 'host=127.0.0.1 port={} user=postgres application_name=standby'\n",
                port.number
            ),
        );
        assert!(command("touch").arg(standby.join("standby.signal")).status().unwrap().success());
        let primary = Self::run(bin, data, port, Some(folder));
        let standby = Self::run(bin, standby, Port::reserve(), None);
        primary.wait_for("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'", "1");
        (primary, standby)
    }

    fn run(bin: &Path, data: PathBuf, reserved: Port, folder: Option<TempDir>) -> Self {
        let port = reserved.number;
        let watch = watched(bin, &data, port);
        let (bin, databases) = (bin.to_owned(), AtomicU32::new(0));
        let server = Self { bin, data, port, watch, databases, _reserved: reserved, _folder: folder };
        assert!(server.comes_up(0), "{}", server.log());
        server
    }

    /// Waits until the server answers; `false` where it ended, for something of one that was killed is still there.
    /// `told`: how long its log was when it was started.
    fn comes_up(&self, told: usize) -> bool {
        let begin = Instant::now();
        while let Err(error) = self.try_sql("postgres", "SELECT 1") {
            let log = self.log();
            if log[told..].contains("pre-existing shared memory block")
                || log[told..].contains("Address already in use")
            {
                return false;
            }
            assert!(begin.elapsed() < PATIENCE, "{error}; {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        true
    }

    fn log(&self) -> String {
        fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    fn end(&mut self) {
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }

    /// After [`Self::kill`].
    pub(crate) fn start_again(&mut self) {
        let begin = Instant::now();
        loop {
            self.end();
            let told = self.log().len();
            self.watch = watched(&self.bin, &self.data, self.port);
            // A session of it ends when it notices that its server did, and until then has the server's memory.
            if self.comes_up(told) {
                return;
            }
            assert!(begin.elapsed() < PATIENCE, "{}", self.log());
        }
    }

    /// A new database's address, without a query.
    pub(crate) fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::SeqCst));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        format!("postgresql://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// The first column of what a statement gives.
    pub(crate) fn try_sql(&self, database: &str, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address = format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port);
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&address, NoTls).await?;
            let driven = tokio::spawn(connection);
            let answer = client.simple_query(sql).await;
            drop(client);
            let _ = driven.await;
            let rows = answer?.into_iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
                _ => None,
            });
            Ok(rows.collect())
        })
    }

    #[track_caller]
    pub(crate) fn sql(&self, database: &str, sql: &str) -> Vec<String> {
        self.try_sql(database, sql).unwrap()
    }

    /// Waits until a statement gives this.
    #[track_caller]
    pub(crate) fn wait_for(&self, sql: &str, expected: &str) {
        let begin = Instant::now();
        while self.sql("postgres", sql) != [expected] {
            assert!(begin.elapsed() < PATIENCE, "{sql} does not give {expected}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Changes a setting of the running server.
    pub(crate) fn set(&self, setting: &str) {
        self.sql("postgres", &format!("ALTER SYSTEM SET {setting}"));
        self.sql("postgres", "SELECT pg_reload_conf()");
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&self) {
        let lock = fs::read_to_string(self.data.join("postmaster.pid")).unwrap();
        let id = lock.lines().next().unwrap().to_owned();
        // Its sessions too: they would go on until they noticed.
        let ids = self.sql("postgres", "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()");
        command("kill").arg("-KILL").arg(id).args(ids).stderr(Stdio::null()).status().unwrap();
    }

    /// Makes a standby a server of its own.
    pub(crate) fn promote(&self) {
        let promoted = command(self.bin.join("pg_ctl")).arg("-D").arg(&self.data).args(["-w", "promote"]).output();
        let promoted = promoted.unwrap();
        assert!(promoted.status.success(), "{}", String::from_utf8_lossy(&promoted.stderr));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn watched(bin: &Path, data: &Path, port: u16) -> Child {
    let log = fs::File::options().create(true).append(true).open(data.with_extension("log")).unwrap();
    let mut watch = command("sh");
    watch.args(["-c", WATCH, "watch"]).arg(bin.join("postgres")).arg("-D").arg(data).args(["-p", &port.to_string()]);
    watch.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn initialized(bin: &Path, folder: &Path) -> PathBuf {
    let data = folder.join("data");
    let mut initdb = command(bin.join("initdb"));
    initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8"]);
    let made = initdb.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().and_then(|mut child| {
        let mut said = String::new();
        child.stderr.take().expect("it is piped").read_to_string(&mut said)?;
        Ok((child.wait()?, said))
    });
    let (status, said) = made.unwrap();
    assert!(status.success(), "{said}");
    append(&data, SETTINGS);
    data
}

fn append(data: &Path, settings: &str) {
    let file = data.join("postgresql.conf");
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str(settings);
    fs::write(file, text).unwrap();
}

//! Where a store is: `postgresql://user@host:port,host2/database?engine=gateway-1&…`, as PostgreSQL's own programs take
//! it, with three options of ours: `engine`, the name under which shards are owned; `shards`, what is taken when the
//! store is opened; and `sslmode`, of which only the safe values are known.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::Error;
use crate::limits::{MAX_ENGINE_NAME, SHARDS, STORE_CONNECT, STORE_PATIENCE};

/// Which shards an engine takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    /// None: it looks, and writes nothing.
    Nothing,
    /// Those that no engine has, and its own of before.
    Free,
    /// These, whoever has them.
    These(Vec<u32>),
}

/// What an address says.
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) tls: Option<MakeRustlsConnect>,
    /// The engine's name: what it owned under it is its own again after a crash.
    pub(super) engine: String,
    pub(super) taking: Taking,
    /// The place in words, without the password.
    pub(super) shown: String,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// [`Error::Malformed`], without the address in it, for it may have a password.
    pub(super) fn parse(url: &str) -> Result<Self, Error> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut engine, mut taking, mut mode, mut roots) = (None, Taking::Free, None, None);
        let mut others = Vec::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "engine" => engine = Some(decoded(value)?),
                "shards" => taking = read_taking(&decoded(value)?)?,
                "sslmode" => mode = Some(decoded(value)?),
                "sslrootcert" => roots = Some(decoded(value)?),
                _ => others.push(option),
            }
        }
        let base = if others.is_empty() { base.to_owned() } else { format!("{base}?{}", others.join("&")) };
        let mut config: Config = base.parse().map_err(|error: tokio_postgres::Error| {
            let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            malformed(&format!("{reason}; give postgresql://USER@HOST/DATABASE?engine=NAME"))
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(malformed("no host; give postgresql://USER@HOST/DATABASE?engine=NAME"));
        }
        let engine = match (engine, &taking) {
            (Some(name), _) => {
                check_engine(&name)?;
                name
            }
            (None, Taking::Nothing) => String::new(),
            (None, _) => {
                let text = "engine: name this engine (?engine=gateway-1): it has its shards again after a crash, and \
                            other engines know them by it";
                return Err(malformed(text));
            }
        };
        let tls = match mode.as_deref() {
            Some("disable") => None,
            None if roots.is_none() && near(&config) => None,
            Some("verify-full") | None => Some(verified(roots.as_deref())?),
            Some(other) => {
                return Err(malformed(&format!(
                    "sslmode: {other:?}; give verify-full (with sslrootcert=FILE for a private authority) or disable: \
                     a server that is not verified could give back old rows"
                )));
            }
        };
        if config.get_password().is_none()
            && let Some(password) = std::env::var_os("PGPASSWORD")
        {
            config.password(password.into_encoded_bytes());
        }
        config
            .ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable })
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(STORE_CONNECT)
            .tcp_user_timeout(STORE_PATIENCE)
            .application_name(format!("interlane {engine}").trim_end());
        let shown = shown(&config);
        Ok(Self { config, tls, engine, taking, shown })
    }
}

/// That an engine's name is one.
pub(super) fn check_engine(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > MAX_ENGINE_NAME || name.contains(char::is_control) {
        return Err(malformed(&format!("engine: a name has 1 to {MAX_ENGINE_NAME} bytes that can be shown")));
    }
    Ok(())
}

fn malformed(text: &str) -> Error {
    Error::Malformed(format!("store: {text}").replace(['\n', '\r'], " "))
}

/// An option's value without its percent signs.
fn decoded(value: &str) -> Result<String, Error> {
    let wrong = || malformed("an option's value is not percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = rest.first_chunk::<2>().and_then(|digits| std::str::from_utf8(digits).ok()).ok_or_else(wrong)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// `none`, `free`, `all`, or numbers: `0-31,40`.
fn read_taking(value: &str) -> Result<Taking, Error> {
    match value {
        "none" => Ok(Taking::Nothing),
        "free" => Ok(Taking::Free),
        "all" => Ok(Taking::These((0..SHARDS).collect())),
        _ => {
            let range = |part: &str| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
                (first <= last && last < SHARDS).then_some(first..=last)
            };
            let ranges: Option<Vec<_>> = value.split(',').map(range).collect();
            let ranges = ranges.ok_or_else(|| {
                malformed(&format!(
                    "shards: {value:?}; give free, all, none, or numbers below {SHARDS} such as 0-31,40"
                ))
            })?;
            Ok(Taking::These(ranges.into_iter().flatten().collect()))
        }
    }
}

/// Whether every host is this machine: nobody stands between.
fn near(config: &Config) -> bool {
    let loopback = |host: &Host| match host {
        Host::Tcp(name) => name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    config.get_hosts().iter().all(loopback) && config.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// TLS to a server whose certificate is of these authorities, or of the system's, and of its name.
fn verified(roots: Option<&str>) -> Result<MakeRustlsConnect, Error> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(file) => {
            let unreadable = |error: &dyn std::fmt::Display| malformed(&format!("sslrootcert: {file}: {error}"));
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))? {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                store.add(certificate).map_err(|error| unreadable(&error))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err(malformed("no authority's certificate is to be had: give sslrootcert=FILE"));
    }
    let provider = Arc::new(rustls_graviola::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| malformed(&format!("TLS: {error}")))?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn shown(config: &Config) -> String {
    let port = |at: usize| config.get_ports().get(at).or(config.get_ports().first()).copied().unwrap_or(5432);
    let mut hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .enumerate()
        .map(|(at, host)| match host {
            Host::Tcp(name) => format!("{name}:{}", port(at)),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().enumerate().map(|(at, host)| format!("{host}:{}", port(at))).collect();
    }
    let database = config.get_dbname().or(config.get_user()).unwrap_or("");
    format!("PostgreSQL at {}/{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &str) -> Address {
        Address::parse(&format!("postgresql://me:pass%20word@127.0.0.1:5555,localhost/db{options}")).unwrap()
    }

    #[track_caller]
    fn refused(url: &str, says: &str) {
        match Address::parse(url).map(|address| address.shown) {
            Err(Error::Malformed(text)) => {
                assert!(text.contains(says), "{text:?} does not say {says:?}");
                assert!(!text.contains("secret") && !text.contains('\n'), "{text:?}");
            }
            other => panic!("{other:?} where {says:?} was to be said"),
        }
    }

    #[test]
    fn our_options_are_taken_out_and_the_rest_is_postgresqls() {
        let address = parsed("?engine=gateway%2d1&shards=0-2,7&application_name=x&sslmode=disable");
        assert_eq!(address.engine, "gateway-1");
        assert_eq!(address.taking, Taking::These(vec![0, 1, 2, 7]));
        assert_eq!(address.config.get_password(), Some(&b"pass word"[..]));
        assert_eq!(address.shown, "PostgreSQL at 127.0.0.1:5555,localhost:5432/db");
        assert!(address.tls.is_none());
        assert_eq!(parsed("?engine=e").taking, Taking::Free);
        assert_eq!(parsed("?shards=none").taking, Taking::Nothing);
        assert_eq!(parsed("?engine=e&shards=all").taking, Taking::These((0..SHARDS).collect()));
    }

    #[test]
    fn a_server_elsewhere_is_verified() {
        refused("postgresql://me@db.example/db?engine=e&sslmode=require", "verify-full");
        refused("postgresql://me@db.example/db?engine=e&sslrootcert=/no/such/file", "/no/such/file");
        assert!(Address::parse("postgresql://me@db.example/db?engine=e&sslmode=disable").unwrap().tls.is_none());
    }

    #[test]
    fn what_is_wrong_is_told_without_the_password() {
        refused("postgresql://me:secret@h/db", "name this engine");
        refused("postgresql://me:secret@h/db?engine=", "1 to");
        refused("postgresql://me:secret@h/db?engine=a%0Ab", "can be shown");
        refused("postgresql://me:secret@h/db?engine=%zz", "percent-encoded");
        refused("postgresql://me:secret@h/db?engine=e&shards=5-3", "numbers below");
        refused("postgresql://me:secret@h/db?engine=e&shards=99999", "numbers below");
        refused("postgresql://me:secret@h/db?engine=e&no_such=1", "no_such");
        refused("postgresql:///db?engine=e", "no host");
        refused("postgresql://me:secret@h:port/db?engine=e", "HOST/DATABASE");
    }
}

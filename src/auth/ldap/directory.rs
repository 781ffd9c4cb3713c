//! What is said to a directory to find out who somebody is.

use std::collections::BTreeSet;

use super::connection::{
    Connection, DirectoryError, Entry, Found, NO_SUCH_OBJECT, SIZE_LIMIT_EXCEEDED, SUCCESS, Search,
};
use super::filter::{Filter, Names};
use super::name::{common_name, group_name, is_name, spelled};
use super::settings::{Groups, Lookup, Membership, Settings};
use crate::types::id::random_base62;
use crate::types::secret::{RandomError, SecretString};

/// Most groups of one person.
const GROUPS_MAX: usize = 4096;

/// Groups that are looked up at once by their identifiers.
const IDS_AT_ONCE: usize = 64;
/// Longest security identifier, in bytes ([MS-DTYP] §2.4.2: at most 15 sub-authorities).
const SID_BYTES_MAX: usize = 68;
const TOKEN_GROUPS: &str = "tokenGroups";
const OBJECT_SID: &str = "objectSid";

/// What directories answer to a wrong password, and to one that they do not take at all (RFC 4511
/// appendix A): invalid credentials, and what is said of accounts that are locked or must not log in.
const REFUSALS: &[u32] = &[49, 19, 48, 50, 53, NO_SUCH_OBJECT];

/// Somebody whom the directory knows.
#[derive(Debug)]
pub(super) struct Person {
    /// The one name of the identity.
    pub alias: String,
    /// The groups, as spelled here, sorted.
    pub groups: BTreeSet<String>,
}

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    /// The directory was asked, and does not say so.
    #[error("{0}")]
    Denied(String),
    /// The directory did not do its part.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// There is no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

fn denied<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Denied(reason.into()))
}

/// Who `name` is, if that is the password. The directory is asked as much about names that it does
/// not know, and about names that are locked here, but never for a password that would not count:
/// directories lock, too.
///
/// # Errors
/// `Denied` when it is not, or is nobody.
pub(super) async fn log_in(
    settings: &Settings,
    name: &str,
    password: &SecretString,
    locked: bool,
) -> Result<Person, Refusal> {
    within(settings, async {
        if settings.lookup == Lookup::Direct && !name.is_ascii() {
            // Before the password is tried nothing tells whether the directory spells it so.
            return denied("a name outside of ASCII, which is only found by a search");
        }
        let mut connection = open(settings).await?;
        let person = prove(&mut connection, settings, name, password, locked).await;
        connection.close().await;
        person
    })
    .await
}

/// Who `name` is now, without a password.
///
/// # Errors
/// `Denied` when it is nobody any more, or nothing can be found out without a password.
pub(super) async fn look_up(settings: &Settings, name: &str) -> Result<Person, Refusal> {
    within(settings, async {
        if settings.lookup == Lookup::Direct {
            return denied("nobody can be looked up without binddn or discoverdn");
        }
        let mut connection = open(settings).await?;
        let person = match find(&mut connection, settings, name).await {
            Ok(entry) => describe(&mut connection, settings, name, entry).await,
            Err(refusal) => Err(refusal),
        };
        connection.close().await;
        person
    })
    .await
}

async fn within<T>(
    settings: &Settings,
    asked: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let answer = tokio::time::timeout(settings.request_max, asked).await;
    answer.unwrap_or_else(|_| Err(DirectoryError::TimedOut.into()))
}

/// A connection to the first server that answers, as the service account where there is one.
async fn open(settings: &Settings) -> Result<Connection, DirectoryError> {
    let mut last = DirectoryError::TimedOut;
    for server in &settings.servers {
        let ready = tokio::time::timeout(settings.connect_max, async {
            let mut connection = Connection::open(server, settings.tls.as_ref()).await?;
            serve_as_account(&mut connection, settings).await?;
            Ok(connection)
        });
        last = match ready.await {
            Ok(Ok(connection)) => return Ok(connection),
            // Another server would say the same, and count it against the account.
            Ok(Err(error @ DirectoryError::Refused { code: 49, .. })) => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => DirectoryError::TimedOut,
        };
        let (host, port) = (&server.host, server.port);
        let cause = std::error::Error::source(&last).map(ToString::to_string);
        tracing::warn!(host, port, error = %last, cause, "a directory cannot be asked");
    }
    Err(last)
}

async fn serve_as_account(
    connection: &mut Connection,
    settings: &Settings,
) -> Result<(), DirectoryError> {
    let Some((dn, password)) = &settings.service else { return Ok(()) };
    match connection.bind(dn, password).await? {
        SUCCESS => Ok(()),
        code => Err(DirectoryError::Refused { what: "the account of binddn", code }),
    }
}

async fn prove(
    connection: &mut Connection,
    settings: &Settings,
    name: &str,
    password: &SecretString,
    locked: bool,
) -> Result<Person, Refusal> {
    let (entry, proof) = match settings.lookup {
        Lookup::First => match find(connection, settings, name).await {
            Ok(entry) => {
                let dn = entry.dn.clone();
                (Ok(entry), dn)
            }
            Err(Refusal::Denied(reason)) => (denied(reason), String::new()),
            Err(refusal) => return Err(refusal),
        },
        Lookup::Direct if settings.domain.is_empty() => {
            (Ok(Entry::default()), settings.entry_of(name))
        }
        Lookup::Direct => (Ok(Entry::default()), settings.login_name(name)),
    };
    if locked || entry.is_err() {
        // Somebody whom there is not: the work is the same, and no account pays for it.
        let nobody = settings.entry_of(&random_base62(24)?);
        connection.bind(&nobody, password).await?;
        entry?;
        return denied("locked");
    }
    match connection.bind(&proof, password).await? {
        SUCCESS => {}
        49 => return denied("wrong password"),
        code if REFUSALS.contains(&code) => {
            return denied(format!("the directory does not let the entry in (result {code})"));
        }
        code => return Err(DirectoryError::Refused { what: "a password", code }.into()),
    }
    let entry = match settings.lookup {
        Lookup::First => entry?,
        Lookup::Direct => find(connection, settings, name).await?,
    };
    describe(connection, settings, name, entry).await
}

/// The one entry that has this name, spelled so.
async fn find(
    connection: &mut Connection,
    settings: &Settings,
    name: &str,
) -> Result<Entry, Refusal> {
    let login_name = settings.login_name(name);
    // Where no entry was searched for, it is the one that the name stands for and no other.
    let own = settings.lookup == Lookup::Direct && settings.domain.is_empty();
    let base = if own { settings.entry_of(name) } else { settings.user_base.clone() };
    let attributes: BTreeSet<&str> = settings
        .user_filter
        .naming_attributes()
        .chain([settings.user_attribute.as_str()])
        .collect();
    let attributes: Vec<&str> = attributes.into_iter().collect();
    let names = Names { username: &login_name, user_dn: "" };
    let search = Search {
        base_only: own,
        // One more than there should be.
        entries_max: 2,
        size_limit: 2,
        page: 0,
        ..searching(settings, &base, &settings.user_filter, names, &attributes)
    };
    let found = connection.search(&search).await?;
    if ![SUCCESS, SIZE_LIMIT_EXCEEDED, NO_SUCH_OBJECT].contains(&found.code) {
        let what = "to search for people";
        return Err(DirectoryError::Refused { what, code: found.code }.into());
    }
    let Found { mut entries, code } = found;
    let entry = match (entries.pop(), entries.is_empty() && code != SIZE_LIMIT_EXCEEDED) {
        (None, _) => return denied("there is no such entry"),
        (Some(_), false) => return denied("more than one entry has that name"),
        (Some(entry), true) => entry,
    };
    if entry.dn.is_empty() {
        return denied("the entry has no name of its own");
    }
    if !is_spelled_so(settings, &entry, &login_name) {
        return denied("the directory spells the name otherwise");
    }
    Ok(entry)
}

/// Whether the entry has the name in this spelling. Directories take many for the same: with other
/// spaces, forms of letters, or accents. Each would be counted, and known, as somebody else.
fn is_spelled_so(settings: &Settings, entry: &Entry, login_name: &str) -> bool {
    settings.user_filter.naming_values(login_name).iter().any(|(attribute, expected)| {
        let expected = std::str::from_utf8(expected).unwrap_or_default();
        let expected = spelled(expected, settings.case_sensitive);
        entry.texts(attribute).any(|value| spelled(value, settings.case_sensitive) == expected)
    })
}

/// Who the entry is, and in which groups. Asked by the service account, or by nobody, or else by the
/// person whose password was right.
async fn describe(
    connection: &mut Connection,
    settings: &Settings,
    name: &str,
    entry: Entry,
) -> Result<Person, Refusal> {
    let alias = if settings.username_as_alias {
        name.to_owned()
    } else {
        let mut values = entry.texts(&settings.user_attribute);
        match (values.next(), values.next()) {
            (Some(value), None) => settings.spelled(value),
            (None, _) => return denied("the entry lacks the attribute of userattr"),
            (Some(_), Some(_)) => {
                return denied("the entry has several values of userattr: which is it?");
            }
        }
    };
    if !is_name(&alias) {
        return denied("the value of userattr is no name");
    }
    let groups = match &settings.groups {
        Some(groups) => member_of(connection, settings, groups, name, &entry).await?,
        None => BTreeSet::new(),
    };
    Ok(Person { alias, groups })
}

async fn member_of(
    connection: &mut Connection,
    settings: &Settings,
    groups: &Groups,
    name: &str,
    entry: &Entry,
) -> Result<BTreeSet<String>, DirectoryError> {
    if settings.service.is_some() {
        serve_as_account(connection, settings).await?;
    } else if groups.anonymously {
        match connection.bind("", &SecretString::new(String::new())).await? {
            SUCCESS => {}
            code => return Err(DirectoryError::Refused { what: "to be asked by nobody", code }),
        }
    }
    let names = Names { username: name, user_dn: &entry.dn };
    let mut member_of = BTreeSet::new();
    match &groups.membership {
        Membership::Filter(filter) => {
            search_groups(connection, settings, groups, filter, names, &mut member_of).await?;
        }
        Membership::TokenGroups => {
            let ids = token_groups(connection, settings, &entry.dn).await?;
            for some in ids.iter().collect::<Vec<_>>().chunks(IDS_AT_ONCE) {
                let filter = Filter::one_of(OBJECT_SID, some.iter().map(|id| id.as_slice()));
                search_groups(connection, settings, groups, &filter, names, &mut member_of).await?;
            }
        }
    }
    Ok(member_of)
}

/// The identifiers of the groups that an entry is in, however they lie in each other: what Active
/// Directory makes up when the entry itself is read ([MS-ADTS] §3.1.1.4.5.19).
async fn token_groups(
    connection: &mut Connection,
    settings: &Settings,
    dn: &str,
) -> Result<BTreeSet<Vec<u8>>, DirectoryError> {
    let (filter, names) = (Filter::any_entry(), Names { username: "", user_dn: "" });
    let search = Search {
        base_only: true,
        entries_max: 1,
        page: 0,
        ..searching(settings, dn, &filter, names, &[TOKEN_GROUPS])
    };
    let found = connection.search(&search).await?;
    if found.code != SUCCESS {
        let what = "to read tokenGroups";
        return Err(DirectoryError::Refused { what, code: found.code });
    }
    let ids: BTreeSet<Vec<u8>> = found
        .entries
        .iter()
        .flat_map(|entry| entry.values(TOKEN_GROUPS).map(<[u8]>::to_vec))
        .collect();
    if ids.len() > GROUPS_MAX || ids.iter().any(|id| id.len() > SID_BYTES_MAX) {
        return Err(DirectoryError::Excessive);
    }
    Ok(ids)
}

/// Adds the names of the groups that a filter finds.
async fn search_groups(
    connection: &mut Connection,
    settings: &Settings,
    groups: &Groups,
    filter: &Filter,
    names: Names<'_>,
    member_of: &mut BTreeSet<String>,
) -> Result<(), DirectoryError> {
    let attributes = [groups.attribute.as_str()];
    let search = searching(settings, &groups.base, filter, names, &attributes);
    let found = connection.search(&search).await?;
    match found.code {
        SUCCESS => {}
        SIZE_LIMIT_EXCEEDED => return Err(DirectoryError::Excessive),
        code => return Err(DirectoryError::Refused { what: "to search for groups", code }),
    }
    for group in &found.entries {
        let mut named = group.texts(&groups.attribute).map(group_name).collect::<Vec<_>>();
        if named.is_empty() {
            // The entry itself is the group.
            named.extend(common_name(&group.dn));
        }
        // What is no name can be given no policies either.
        let named = named.into_iter().filter(|name| is_name(name));
        member_of.extend(named.map(|name| settings.spelled(&name)));
        if member_of.len() > GROUPS_MAX {
            return Err(DirectoryError::Excessive);
        }
    }
    Ok(())
}

fn searching<'a>(
    settings: &Settings,
    base: &'a str,
    filter: &'a Filter,
    names: Names<'a>,
    attributes: &'a [&'a str],
) -> Search<'a> {
    Search {
        base,
        base_only: false,
        aliases: settings.aliases,
        entries_max: GROUPS_MAX,
        size_limit: 0,
        seconds_max: u32::try_from(settings.request_max.as_secs()).unwrap_or(u32::MAX),
        page: settings.page,
        filter,
        names,
        attributes,
    }
}

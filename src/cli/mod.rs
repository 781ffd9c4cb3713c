//! The command line: parse, connect, run, and say what happened.

mod apply;
mod argv;
mod audit;
pub mod ca;
mod demo;
mod dev;
mod error;
mod import;
mod kv;
mod lease;
mod logical;
mod login;
mod meaning;
mod mounts;
mod openapi;
mod operator;
mod output;
mod panics;
mod policy;
mod print;
mod quota;
mod server;
mod session;
mod table;
pub mod throwaway_postgres;
mod token;
mod token_file;
mod transit;
mod values;
mod versions;
mod yaml;

use std::ffi::OsString;
use std::io::{IsTerminal, stderr, stdin, stdout};

use clap::{CommandFactory, Parser};

use error::{CliError, EXIT_LOCAL, EXIT_REFUSED};
use output::{Output, Streams};
use session::{GlobalFlags, Process, Session};

/// Every secret on a lease: the broker, and the tools to talk to it.
#[derive(Debug, Parser)]
#[command(name = "leasehold", version, propagate_version = false)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Line {
    #[command(flatten)]
    global: GlobalFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Connected(Connected),
    #[command(flatten)]
    Local(Local),
}

/// Commands that talk to a server.
#[derive(Debug, clap::Subcommand)]
enum Connected {
    /// Show whether the server is initialized and sealed; exits with 2 when sealed
    Status,
    /// Initialize, unseal, seal and rekey the server
    #[command(subcommand)]
    Operator(operator::Operator),
    /// Log in and keep the token
    Login(login::Login),
    /// Read a path
    Read(logical::Read),
    /// Write values to a path
    Write(logical::Write),
    /// Change some values at a path
    Patch(logical::Patch),
    /// List the names below a path
    List(logical::List),
    /// Delete a path
    Delete(logical::Delete),
    /// Open a wrapped answer
    Unwrap(logical::Unwrap),
    /// Read and write key/value secrets
    #[command(subcommand)]
    Kv(kv::Kv),
    /// Look after leases
    #[command(subcommand)]
    Lease(lease::Lease),
    /// Make, see and end tokens
    #[command(subcommand)]
    Token(token::Token),
    /// See, set and format policies, and have them explained
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Look after the audit
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Bring keys of your own into transit
    #[command(subcommand)]
    Transit(transit::Transit),
    /// Look after quotas on requests and leases
    #[command(subcommand)]
    Quota(quota::Quota),
    /// List the versions that have unsealed the server's store, and since when
    VersionHistory,
    /// Print the OpenAPI document: of the server with -address, else of this version
    #[command(name = "openapi")]
    OpenApi(openapi::OpenApi),
    /// Say what a path is for, and which fields it takes
    PathHelp(openapi::PathHelp),
    /// Print what commands would use
    #[command(subcommand)]
    Print(print::Print),
    /// Mount secrets engines
    #[command(subcommand)]
    Secrets(mounts::Secrets),
    /// Mount auth methods
    #[command(subcommand)]
    Auth(mounts::Auth),
    /// Set the broker up as a document says, or show what differs from it
    Apply(apply::Apply),
    /// Copy what a Vault or OpenBao server has
    Import(Box<import::Import>),
}

/// Commands that need no server.
#[derive(Debug, clap::Subcommand)]
enum Local {
    /// Run the server
    Server(server::Server),
    /// Run a broker for development, with a throw-away certificate authority
    Dev(Box<dev::Dev>),
    /// Play the main job end to end, and say how each step went
    Demo(demo::Demo),
    /// Print shell completions
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
}

/// How a command ended that did what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// Well.
    Done,
    /// Well, and the server turned out to be sealed.
    Sealed,
    /// Well, and the server turned out to differ from what was asked for.
    Drift,
}

/// Runs the command in `args` (the program's name first) with the process's own streams and
/// environment, and returns its exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> u8 {
    panics::show_no_values();
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut process = Process {
        env: Box::new(|name| std::env::var(name).ok()),
        stdin: Box::new(stdin()),
        stdin_is_terminal: stdin().is_terminal(),
        output: Output::new(Streams {
            out: Box::new(stdout()),
            err: Box::new(stderr()),
            out_is_terminal: stdout().is_terminal(),
            err_is_terminal: stderr().is_terminal(),
            colour,
        }),
    };
    execute(args, &mut process)
}

fn execute(args: impl IntoIterator<Item = OsString>, process: &mut Process) -> u8 {
    let args = argv::with_double_dashes(&Line::command(), args);
    let line = match Line::try_parse_from(args) {
        Ok(line) => line,
        Err(error) => return usage(&error, process),
    };
    let format = match line.global.format(process) {
        Ok(format) => format,
        Err(error) => {
            process.output.failure(&error);
            return error.exit_code();
        }
    };
    process.output.configure(format, line.global.field.clone());
    match run(line, process) {
        Ok(Finish::Done) => 0,
        Ok(Finish::Sealed | Finish::Drift) => EXIT_REFUSED,
        Err(error) => match error.shown() {
            Some(text) if process.output.line(text).is_ok() => 0,
            Some(_) | None => {
                process.output.failure(&error);
                error.exit_code()
            }
        },
    }
}

/// Help was asked for, or the arguments make no sense; clap has the words for both.
fn usage(error: &clap::Error, process: &mut Process) -> u8 {
    let text = error.render().to_string();
    let text = text.trim_end();
    // A failure to print leaves only the exit status to tell.
    if error.use_stderr() {
        let _ = process.output.note(text);
        EXIT_LOCAL
    } else {
        let _ = process.output.line(text);
        0
    }
}

fn run(line: Line, process: &mut Process) -> Result<Finish, CliError> {
    let command = match line.command {
        Command::Local(command) => return local(command, process).map(|()| Finish::Done),
        Command::Connected(command) => command,
    };
    if let Connected::Operator(operator::Operator::GenerateRoot(command)) = &command
        && command.is_offline()
    {
        return command.decode(process).map(|()| Finish::Done);
    }
    if let Connected::OpenApi(command) = &command
        && line.global.address.is_none()
    {
        return command.print(process).map(|()| Finish::Done);
    }
    if let Connected::Audit(audit::Audit::Verify(command)) = &command {
        return command.run(process).map(|()| Finish::Done);
    }
    if let Connected::Policy(policy::Policy::Fmt(command)) = &command {
        return command.run(process).map(|()| Finish::Done);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::system("cannot start the runtime"))?;
    runtime.block_on(async {
        let mut session = Session::open(line.global, process)?;
        connected(command, &mut session).await
    })
}

/// A runtime for commands that serve.
fn multi_threaded() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(CliError::system("cannot start the runtime"))
}

fn local(command: Local, process: &mut Process) -> Result<(), CliError> {
    match command {
        Local::Server(command) => command.run(process),
        Local::Dev(command) => command.run(process),
        Local::Demo(command) => command.run(process),
        Local::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Line::command(), "leasehold", &mut script);
            process.output.line(String::from_utf8_lossy(&script).trim_end())
        }
        Local::Version => process.output.line(concat!("leasehold ", env!("CARGO_PKG_VERSION"))),
    }
}

async fn connected(command: Connected, session: &mut Session<'_>) -> Result<Finish, CliError> {
    match command {
        Connected::Status => return operator::status(session).await,
        Connected::Operator(command) => return command.run(session).await,
        Connected::Apply(command) => {
            session.refuse_showing()?;
            return command.run(session).await;
        }
        Connected::Import(command) => {
            session.refuse_showing()?;
            return command.run(session).await;
        }
        Connected::Login(command) => command.run(session).await?,
        Connected::Read(command) => command.run(session).await?,
        Connected::Write(command) => command.run(session).await?,
        Connected::Patch(command) => command.run(session).await?,
        Connected::List(command) => command.run(session).await?,
        Connected::Delete(command) => command.run(session).await?,
        Connected::Unwrap(command) => command.run(session).await?,
        Connected::Kv(command) => command.run(session).await?,
        Connected::Lease(command) => command.run(session).await?,
        Connected::Token(command) => command.run(session).await?,
        Connected::Policy(command) => command.run(session).await?,
        Connected::Audit(command) => command.run(session).await?,
        Connected::Transit(command) => command.run(session).await?,
        Connected::Quota(command) => command.run(session).await?,
        Connected::VersionHistory => versions::history(session).await?,
        Connected::OpenApi(command) => command.run(session).await?,
        Connected::PathHelp(command) => command.run(session).await?,
        Connected::Print(command) => command.run(session)?,
        Connected::Secrets(command) => command.run(session).await?,
        Connected::Auth(command) => command.run(session).await?,
    }
    Ok(Finish::Done)
}

#[cfg(test)]
mod tests;

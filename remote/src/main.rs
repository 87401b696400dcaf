//! `tinyres-remote`: packed sets in object stores and on web servers. `tinyres` and its other programs start it for the
//! addresses of sets, and then use the directory that it names; it is a program of its own, so that they stay small.

mod address;
mod answers;
mod aws;
mod cmd;
mod error;
mod fetch;
mod publish;
mod shard;
mod store;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tinyres::cli::Global;
use tinyres::event::{Event, Observer};
use tinyres::remote::relay::Message;
use tinyres::ui;

/// Fetch packed sets from object stores, and publish them there
///
/// Addresses are s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH and https://HOST/PATH/ of a set, raw or
/// compressed. The other commands of tinyres take them, too, and start this program for them.
///
/// Credentials, endpoints and regions are those of the AWS, Google and Azure tools: their variables, the profiles in
/// ~/.aws (AWS_PROFILE), GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_CONNECTION_STRING and so on, or what the machine
/// has. AWS_SKIP_SIGNATURE, GOOGLE_SKIP_SIGNATURE or AZURE_SKIP_SIGNATURE=true uses none, for public sets.
#[derive(Parser)]
#[command(name = "tinyres-remote", version, disable_help_subcommand = true)]
struct Cli {
    /// The command
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
    /// Say everything to the program that started this one
    #[arg(long, global = true, hide = true)]
    events: bool,
}

#[derive(Subcommand)]
enum Command {
    Fetch(cmd::Fetch),
    Publish(cmd::Publish),
}

/// The program that started this one.
struct Caller;

impl Caller {
    fn say(message: &Message) {
        if message.write(&mut io::stdout()).is_err() {
            // Nobody waits for the set any more. What came stays.
            std::process::exit(1);
        }
    }
}

impl Observer for Caller {
    fn on(&mut self, event: &Event) {
        Self::say(&Message::of(event));
    }
}

fn main() -> ExitCode {
    ui::prepare_process();
    let cli = Cli::parse();
    // Fails if there is one, which then serves.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if cli.events {
        let result = match cli.command {
            Command::Fetch(args) => args.run(&mut Caller).and_then(json),
            Command::Publish(args) => args.run(&mut Caller).and_then(json),
        };
        match result {
            Ok(result) => Caller::say(&Message::Done(result)),
            Err(error) => {
                Caller::say(&Message::Error(error.to_string()));
                return ExitCode::FAILURE;
            }
        }
        return ExitCode::SUCCESS;
    }
    let mut ui = cli.global.ui();
    let result = match cli.command {
        Command::Fetch(args) => args.run(&mut ui).and_then(|result| Ok(ui.result(&result)?)),
        Command::Publish(args) => args.run(&mut ui).and_then(|result| Ok(ui.result(&result)?)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ui::exit(&error),
    }
}

fn json(result: impl serde::Serialize) -> anyhow::Result<serde_json::Value> {
    Ok(serde_json::to_value(result)?)
}

//! The settings of the AWS tools: variables, and the profiles in `~/.aws`. `object_store` reads the variables only.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use serde::Deserialize;

use crate::error::{Error, Result};

/// Keys and values of a profile.
type Profile = HashMap<String, String>;

/// A builder with the settings of the environment and of the profile that it names. `address` is for errors.
pub fn builder(address: &str) -> Result<AmazonS3Builder> {
    let mut builder = AmazonS3Builder::from_env();
    let profile = Profiles::read().profile(address)?;
    let has = |builder: &AmazonS3Builder, key| builder.get_config_value(&key).is_some();
    if !has(&builder, AmazonS3ConfigKey::Region)
        && let Some(region) = profile.get("region")
    {
        builder = builder.with_region(region);
    }
    if !has(&builder, AmazonS3ConfigKey::Endpoint)
        && !has(&builder, AmazonS3ConfigKey::S3Endpoint)
        && let Some(endpoint) = profile.get("endpoint_url")
    {
        builder = builder.with_endpoint(endpoint);
    }
    let anonymous = builder.get_config_value(&AmazonS3ConfigKey::SkipSignature);
    let from_environment = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    let given = from_environment.iter().any(|name| variable(name).is_some());
    if given || anonymous.as_deref() == Some("true") {
        return Ok(builder);
    }
    let Some(keys) = keys(&profile, address)? else {
        return Ok(builder);
    };
    builder = builder
        .with_access_key_id(keys.access_key_id)
        .with_secret_access_key(keys.secret_access_key);
    Ok(match keys.session_token {
        Some(token) => builder.with_token(token),
        None => builder,
    })
}

/// The variable `name`, unless it is empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The profiles of both files.
struct Profiles {
    profiles: HashMap<String, Profile>,
    services: HashMap<String, Profile>,
}

impl Profiles {
    fn read() -> Self {
        let path = |name, file| {
            let home = || Some(PathBuf::from(variable("HOME")?).join(".aws").join(file));
            variable(name).map(PathBuf::from).or_else(home)
        };
        let read = |path: Option<PathBuf>| {
            path.and_then(|path| fs::read_to_string(path).ok())
                .unwrap_or_default()
        };
        Self::parse(
            &read(path("AWS_CONFIG_FILE", "config")),
            &read(path("AWS_SHARED_CREDENTIALS_FILE", "credentials")),
        )
    }

    /// The profiles of the texts of both files; keys of the second one go first.
    fn parse(config: &str, credentials: &str) -> Self {
        let (mut profiles, mut services) = (HashMap::<String, Profile>::new(), HashMap::new());
        for (name, values) in sections(config) {
            match name.split_once(' ') {
                Some(("services", name)) => services.insert(name.trim().to_owned(), values),
                Some(("profile", name)) => profiles.insert(name.trim().to_owned(), values),
                None if name == "default" => profiles.insert(name, values),
                _ => None,
            };
        }
        for (name, values) in sections(credentials) {
            profiles.entry(name).or_default().extend(values);
        }
        Self { profiles, services }
    }

    /// The profile that the environment names. It is an error if there is none of a name that is set.
    fn profile(mut self, address: &str) -> Result<Profile> {
        let named = variable("AWS_PROFILE").or_else(|| variable("AWS_DEFAULT_PROFILE"));
        let name = named.as_deref().unwrap_or("default");
        let Some(mut profile) = self.profiles.remove(name) else {
            return match named {
                None => Ok(Profile::new()),
                Some(name) => Err(Error::Settings {
                    address: address.to_owned(),
                    reason: format!(
                        "there is no profile {name} in ~/.aws: run `aws configure --profile {name}`, or unset AWS_PROFILE"
                    ),
                }),
            };
        };
        let service = profile
            .get("services")
            .and_then(|name| self.services.get(name));
        if let Some(endpoint) = service.and_then(|service| service.get("s3.endpoint_url")) {
            profile.insert("endpoint_url".to_owned(), endpoint.clone());
        }
        // Said, so that the program which is asked for keys knows it, too.
        profile.insert("name".to_owned(), name.to_owned());
        Ok(profile)
    }
}

/// The sections of an INI file as the AWS tools write it, with the keys of an indented group as `GROUP.KEY`.
fn sections(text: &str) -> Vec<(String, Profile)> {
    let mut sections: Vec<(String, Profile)> = Vec::new();
    let mut group = String::new();
    for line in text.lines() {
        let bare = line.trim();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = bare
            .strip_prefix('[')
            .and_then(|name| name.split(']').next())
        {
            sections.push((name.trim().to_owned(), Profile::new()));
            group.clear();
        } else if let Some((key, value)) = bare.split_once('=')
            && let Some((_, section)) = sections.last_mut()
        {
            let (key, value) = (key.trim(), value.trim());
            if !line.starts_with([' ', '\t']) {
                group = if value.is_empty() {
                    format!("{key}.")
                } else {
                    String::new()
                };
            }
            section.insert(format!("{group}{key}"), value.to_owned());
        }
    }
    sections
}

/// Keys as `credential_process` writes them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// The keys of `profile`; `None` if it has none and no way to get some.
fn keys(profile: &Profile, address: &str) -> Result<Option<Keys>> {
    let get = |key| profile.get(key).cloned();
    if let (Some(access_key_id), Some(secret_access_key)) =
        (get("aws_access_key_id"), get("aws_secret_access_key"))
    {
        return Ok(Some(Keys {
            access_key_id,
            secret_access_key,
            session_token: get("aws_session_token"),
        }));
    }
    let (command, shown) = match get("credential_process") {
        Some(process) => {
            let mut command = Command::new("sh");
            command.args(["-c", &process]);
            (command, "its credential_process")
        }
        // Logins and roles are those of the AWS tools.
        None if ["sso_session", "sso_start_url", "role_arn", "login_session"]
            .iter()
            .any(|key| profile.contains_key(*key)) =>
        {
            let mut command = Command::new("aws");
            command.args(["configure", "export-credentials", "--format", "process"]);
            command.args(get("name").iter().flat_map(|name| ["--profile", name]));
            (command, "`aws configure export-credentials`")
        }
        None => return Ok(None),
    };
    run(command).map(Some).map_err(|reason| Error::Settings {
        address: address.to_owned(),
        reason: format!(
            "no keys of profile {} by {shown}: {reason}",
            get("name").unwrap_or_default()
        ),
    })
}

fn run(mut command: Command) -> std::result::Result<Keys, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.trim().lines().last().unwrap_or("it failed").to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_read_as_the_aws_tools_read_them() {
        let config = "[default]\nregion = eu-central-1\n\n[profile lab]\nservices = here\ns3 =\n  max_concurrent_requests = 4\n\
                      region=us-west-2 \n# nothing\n[services here]\ns3 =\n    endpoint_url = http://127.0.0.1:9000\n";
        let credentials = "[lab]\naws_access_key_id = A\naws_secret_access_key = B=\n[default]\naws_access_key_id=C\n";
        let profiles = Profiles::parse(config, credentials);
        let lab = &profiles.profiles["lab"];
        assert_eq!(lab["region"], "us-west-2");
        assert_eq!(lab["s3.max_concurrent_requests"], "4");
        assert_eq!(lab["aws_secret_access_key"], "B=");
        assert_eq!(
            profiles.services["here"]["s3.endpoint_url"],
            "http://127.0.0.1:9000"
        );
        assert_eq!(profiles.profiles["default"]["aws_access_key_id"], "C");
        assert_eq!(profiles.profiles["default"]["region"], "eu-central-1");
    }

    #[test]
    fn a_credential_process_is_asked_for_keys() {
        let process = r#"echo '{"Version": 1, "AccessKeyId": "A", "SecretAccessKey": "B", "SessionToken": "T"}'"#;
        let mut profile = Profile::from([("credential_process".to_owned(), process.to_owned())]);
        let found = keys(&profile, "s3://b").unwrap().unwrap();
        assert_eq!(
            (found.access_key_id.as_str(), found.session_token.as_deref()),
            ("A", Some("T"))
        );
        profile.insert(
            "credential_process".to_owned(),
            "echo no >&2; exit 3".to_owned(),
        );
        let error = keys(&profile, "s3://b").err().unwrap().to_string();
        assert!(error.ends_with("by its credential_process: no"), "{error}");
    }
}

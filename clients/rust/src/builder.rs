//! What to start, and how.
//!
//! Owns the defaults. Refuses to start anything itself.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::bridge::{Bridge, Defaults};
use crate::credentials::{Credential, CredentialRequest, Credentials};
use crate::error::Result;
use crate::io::IoThread;
use crate::locate::find_command;
use crate::process::Launch;
use crate::retry::RetryPolicy;
use crate::supervisor::{Plan, Pool, Recycling};
use crate::types::Deadlines;

/// What to start, and how. Everything has a default.
///
/// ```no_run
/// use std::time::Duration;
/// use omni_bridge_client::{Bridge, Recycling};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> omni_bridge_client::Result<()> {
/// let bridge = Bridge::builder()
///     .config("gateway.yaml")
///     .env("OPENAI_API_KEY", "sk-...")
///     .workers(2)
///     .recycling(Recycling::above(800 << 20))
///     .shutdown_grace(Duration::from_secs(3))
///     .spawn()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct BridgeBuilder {
    command: Option<PathBuf>,
    arguments: Vec<OsString>,
    config: Option<PathBuf>,
    settings: Vec<(OsString, OsString)>,
    retry: Option<RetryPolicy>,
    environment: Vec<(OsString, OsString)>,
    clear_environment: bool,
    directory: Option<PathBuf>,
    workers: usize,
    deadlines: Option<Deadlines>,
    start_timeout: Duration,
    shutdown_grace: Duration,
    backoff: (Duration, Duration),
    recycling: Option<Recycling>,
    hung_after: Duration,
    credentials: Option<Credentials>,
    credentials_for: Option<Vec<String>>,
    credentials_timeout: Option<Duration>,
}

impl Default for BridgeBuilder {
    fn default() -> Self {
        BridgeBuilder {
            command: None,
            arguments: Vec::new(),
            config: None,
            settings: Vec::new(),
            retry: None,
            environment: Vec::new(),
            clear_environment: false,
            directory: None,
            workers: 1,
            deadlines: None,
            start_timeout: Duration::from_secs(120),
            shutdown_grace: Duration::from_secs(10),
            backoff: (Duration::from_millis(100), Duration::from_secs(10)),
            recycling: None,
            hung_after: Duration::from_secs(5),
            credentials: None,
            credentials_for: None,
            credentials_timeout: None,
        }
    }
}

impl Bridge {
    /// What to start, and how.
    pub fn builder() -> BridgeBuilder {
        BridgeBuilder::default()
    }

    /// Starts the `omni-bridge` that is found next to the running executable or on `PATH`.
    pub async fn spawn() -> Result<Bridge> {
        Bridge::builder().spawn().await
    }

    /// Speaks to a worker over any pair of byte streams, such as a stand-in in a test. It is not restarted.
    pub async fn connect<R, W>(reader: R, writer: W) -> Result<Bridge>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        Bridge::builder().connect(reader, writer).await
    }
}

impl BridgeBuilder {
    /// The program. A bare name is looked for next to the running executable and then on `PATH`; the default is `omni-bridge`.
    /// It is started as it is, without a shell.
    pub fn command(mut self, command: impl Into<PathBuf>) -> Self {
        self.command = Some(command.into());
        self
    }

    /// One more argument, before those that this crate adds (`--stdio`, `--config`, settings).
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// More arguments.
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// A LiteLLM gateway's `config.yaml`. Only the models that it declares exist then.
    pub fn config(mut self, file: impl Into<PathBuf>) -> Self {
        self.config = Some(file.into());
        self
    }

    /// A setting of the worker by its name in the config, for one that has no method here.
    pub fn setting(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.settings.push((format!("--{}", name.replace('_', "-")).into(), value.into()));
        self
    }

    /// Loads the models of this machine (`local/NAME`) ahead.
    pub fn local_models(self) -> Self {
        self.arg("--local")
    }

    /// Tries failed calls again; never unless set.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// A variable of the worker's environment, such as a provider's key. Without more ado it inherits this process's environment.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// More variables.
    pub fn envs<N: Into<OsString>, V: Into<OsString>>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        self.environment.extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Inherit nothing: the worker sees only what [`env`](BridgeBuilder::env) gives it.
    pub fn env_clear(mut self) -> Self {
        self.clear_environment = true;
        self
    }

    /// The worker's working directory.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// How many processes share the calls. One serves an agent well; more use more cores.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Deadlines of chats without deadlines.
    pub fn deadlines(mut self, deadlines: Deadlines) -> Self {
        self.deadlines = Some(deadlines);
        self
    }

    /// The time limit of the handshake. Two minutes unless set, because the launcher of a checkout installs its environment on the
    /// first use; a bundle responds in a tenth of a second.
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.start_timeout = limit;
        self
    }

    /// What [`Bridge::shutdown`] leaves to the calls in flight; ten seconds unless set.
    pub fn shutdown_grace(mut self, grace: Duration) -> Self {
        self.shutdown_grace = grace;
        self
    }

    /// The pauses before the restarts of a worker that keeps failing: they double from the first to the second of these, 100 ms and
    /// 10 s unless set.
    pub fn backoff(mut self, least: Duration, most: Duration) -> Self {
        self.backoff = (least, most);
        self
    }

    /// Replaces workers that have grown; never unless set.
    pub fn recycling(mut self, recycling: Recycling) -> Self {
        self.recycling = Some(recycling);
        self
    }

    /// A worker that has requests in flight and sends nothing for this long gets a ping; if it does not respond within as long again,
    /// it hangs, and it is killed and replaced. Five seconds unless set, and six times as long until its engine is ready.
    pub fn hung_after(mut self, silence: Duration) -> Self {
        self.hung_after = silence;
        self
    }

    /// Returns a provider's key when the worker needs it, where neither its config nor its environment has one. An error is the reason
    /// in the error of the call, with the kind `authentication`. The closure runs on the bridge's thread, so it must not block.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use omni_bridge_client::{Bridge, Credential};
    ///
    /// # async fn from_the_vault(name: &str) -> Result<String, std::io::Error> { Ok(name.to_owned()) }
    /// # async fn run() -> omni_bridge_client::Result<()> {
    /// let bridge = Bridge::builder()
    ///     .credentials(|request| async move {
    ///         let key = from_the_vault(&request.provider).await?;
    ///         Ok::<_, std::io::Error>(Credential::api_key(key).expires_in(Duration::from_secs(600)))
    ///     })
    ///     .spawn()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn credentials<F, Fut, E>(mut self, get: F) -> Self
    where
        F: Fn(CredentialRequest) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<Credential, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.credentials = Some(Credentials::new(get));
        self
    }

    /// The closure of [`credentials`](BridgeBuilder::credentials), for these providers only. It is then used for those too that
    /// may have a key elsewhere, such as `bedrock` and `vertex_ai`.
    pub fn credentials_for<T: Into<String>>(mut self, providers: impl IntoIterator<Item = T>) -> Self {
        self.credentials_for = Some(providers.into_iter().map(Into::into).collect());
        self
    }

    /// How long the closure of [`credentials`](BridgeBuilder::credentials) may take, such as for a user's confirmation; 30 seconds
    /// unless set, ten minutes at most.
    pub fn credentials_timeout(mut self, limit: Duration) -> Self {
        self.credentials_timeout = Some(limit.min(Duration::from_secs(600)));
        self
    }

    /// Speaks to a worker over any pair of byte streams, such as a stand-in in a test. It is not restarted.
    pub async fn connect<R, W>(self, reader: R, writer: W) -> Result<Bridge>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        self.connect_on(IoThread::start()?, reader, writer).await
    }

    /// Starts the workers and waits for their responses to `initialize`. Fails with what they wrote to stderr if one does not come up.
    pub async fn spawn(self) -> Result<Bridge> {
        let program = find_command(self.command.as_deref())?;
        let defaults = self.defaults();
        Ok(Bridge::over(Pool::start(self.plan(program)).await?, defaults))
    }

    /// On a thread that runs already, for a worker that plays on it too.
    pub(crate) async fn connect_on<R, W>(self, thread: IoThread, reader: R, writer: W) -> Result<Bridge>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let defaults = self.defaults();
        Ok(Bridge::over(Pool::over(thread, reader, writer, self.plan(PathBuf::new())).await?, defaults))
    }

    fn defaults(&self) -> Defaults {
        Defaults { deadlines: self.deadlines, retry: self.retry.clone() }
    }

    fn plan(self, program: PathBuf) -> Plan {
        let mut arguments = self.arguments;
        arguments.push("--stdio".into());
        if let Some(config) = self.config {
            arguments.extend(["--config".into(), config.into()]);
        }
        arguments.extend(self.settings.into_iter().flat_map(|(flag, value)| [flag, value]));
        let BridgeBuilder { environment, clear_environment, directory, .. } = self;
        Plan {
            launch: Launch { program, arguments, environment, clear_environment, directory },
            workers: self.workers,
            start_timeout: self.start_timeout,
            shutdown_grace: self.shutdown_grace,
            backoff: self.backoff,
            recycling: self.recycling,
            hung_after: self.hung_after,
            credentials: self.credentials.map(|get| get.declaring(self.credentials_for, self.credentials_timeout)),
        }
    }
}

/// Names of environment variables, not their values: these are keys.
impl fmt::Debug for BridgeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("BridgeBuilder")
            .field("command", &self.command)
            .field("arguments", &self.arguments)
            .field("config", &self.config)
            .field("environment", &names)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

//! Asks again and again.
//!
//! In: a configuration, the list. Out: the list, kept up to date; how the last question ended. Promise: a provider that does not
//! answer is asked again, ever less often up to the interval, and takes nothing away.

use crate::fetch::fetch;
use crate::{Config, Worklist};
use fovea_core::{UnixMicros, chain};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Before the first repeat after a failure; doubled each time, up to the interval.
const RETRY_MIN: Duration = Duration::from_secs(5);

/// How the last questions ended, for people.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct State {
    /// The last complete answer.
    pub fetched_at_unix_us: Option<UnixMicros>,
    /// Why there was none since, in words.
    pub error: Option<String>,
}

/// Keeps `list` up to date until `stop` fires, and tells in `state` how it goes.
pub async fn run(config: Config, list: Arc<Worklist>, state: Arc<Mutex<State>>, stop: CancellationToken) {
    let mut retry = RETRY_MIN;
    while !stop.is_cancelled() {
        let wait = match once(&config, &list).await {
            Ok(at) => {
                retry = RETRY_MIN;
                tell(&state, |state| *state = State { fetched_at_unix_us: Some(at), error: None });
                config.interval
            }
            Err(why) => {
                tell(&state, |state| {
                    if state.error.as_ref() != Some(&why) {
                        log::warn!("the worklist is not up to date: {why}");
                    }
                    state.error = Some(why);
                });
                let wait = retry.min(config.interval);
                retry *= 2;
                retry = retry.min(config.interval);
                wait
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn once(config: &Config, list: &Arc<Worklist>) -> Result<UnixMicros, String> {
    let now = UnixMicros::from(SystemTime::now());
    let items = fetch(config, now).await.map_err(|error| chain(&error))?;
    let (list, keep) = (Arc::clone(list), config.keep);
    let updated = tokio::task::spawn_blocking(move || list.update(items, now, keep)).await;
    updated.map_err(|error| chain(&error))?.map_err(|error| chain(&error))?;
    Ok(now)
}

fn tell(state: &Mutex<State>, change: impl FnOnce(&mut State)) {
    change(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
}

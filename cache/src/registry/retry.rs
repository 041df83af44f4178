//! When to try again, and when to give up.
//!
//! Attempts are counted between two moments of progress, so that a transfer that breaks off again and again but comes
//! further each time ends, and one that does not move ends as well.

use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::{RegistryError, Timing};

/// An attempt that failed, and whether another one makes sense.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: RegistryError,
    pub(super) retry: Retry,
}

/// Whether another attempt makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// The answer would be the same.
    Never,
    /// After a pause.
    Backoff,
    /// The server could not be reached at all: a wrong name or port more often than a fault, so only twice more.
    Unreachable,
    /// After the pause that the server asked for.
    After(Duration),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self { error, retry: Retry::Never }
    }
}

impl Failure {
    pub(super) fn passing(error: RegistryError) -> Self {
        Self { error, retry: Retry::Backoff }
    }
}

type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How pauses are made; tests make them short and look at them.
#[derive(Clone)]
pub(super) struct Clock(Arc<dyn Fn(Duration) -> Sleep + Send + Sync>);

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(|pause| Box::pin(tokio::time::sleep(pause))))
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl Clock {
    #[cfg(test)]
    pub(super) fn recording(into: Arc<std::sync::Mutex<Vec<Duration>>>) -> Self {
        Self(Arc::new(move |pause| {
            into.lock().unwrap().push(pause);
            Box::pin(tokio::time::sleep(Duration::from_millis(1)))
        }))
    }

    async fn sleep(&self, pause: Duration) {
        (self.0)(pause).await;
    }
}

/// What is left of the patience for one transfer.
#[derive(Debug)]
pub(super) struct Budget {
    timing: Timing,
    clock: Clock,
    failures: u32,
    unreachable: u32,
    asked: Duration,
    since: Instant,
}

impl Budget {
    pub(super) fn new(timing: &Timing, clock: &Clock) -> Self {
        Self {
            timing: timing.clone(),
            clock: clock.clone(),
            failures: 0,
            unreachable: 0,
            asked: Duration::ZERO,
            since: Instant::now(),
        }
    }

    /// Something came through: counting begins anew.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
        self.unreachable = 0;
        self.asked = Duration::ZERO;
        self.since = Instant::now();
    }

    /// Waits before the next attempt, or gives the error back if there is to be none.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), RegistryError> {
        self.failures += 1;
        let spent = self.since.elapsed().saturating_sub(self.asked);
        if self.failures >= self.timing.attempts || spent >= self.timing.patience {
            return Err(failure.error);
        }
        let pause = match failure.retry {
            Retry::Never => return Err(failure.error),
            Retry::Unreachable if self.unreachable >= 2 => return Err(failure.error),
            Retry::Unreachable => {
                self.unreachable += 1;
                self.backoff(jitter())
            }
            Retry::Backoff => self.backoff(jitter()),
            Retry::After(asked) => {
                if asked > self.timing.max_retry_after {
                    let action = match failure.error {
                        RegistryError::Status { action, .. } => action,
                        other => return Err(other),
                    };
                    return Err(RegistryError::RetryLater { action, seconds: asked.as_secs() });
                }
                self.asked += asked;
                asked + self.timing.backoff.mul_f64(jitter())
            }
        };
        self.clock.sleep(pause).await;
        Ok(())
    }

    /// Doubled for each failure; between half of it and all of it by `jitter` (0 to 1).
    fn backoff(&self, jitter: f64) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(20);
        let full = self.timing.backoff.saturating_mul(1 << doublings).min(self.timing.max_backoff);
        full.mul_f64(0.5 + jitter / 2.0)
    }
}

/// A number from 0 to 1 that differs between clients: those that failed together shall not come back together.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

/// `Retry-After`: seconds or an HTTP date (RFC 9110 §10.2.3).
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if value.len() > 40 {
        return None;
    }
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = SystemTime::from(jiff::fmt::rfc2822::parse(value).ok()?.timestamp());
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        for (value, expected) in [
            ("3", Some(3)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("99999999999999999999999", None),
        ] {
            assert_eq!(retry_after(value, now), expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn pauses_double_up_to_the_cap() {
        let mut budget = Budget::new(&Timing::default(), &Clock::default());
        let pauses: Vec<_> = (1..8)
            .map(|failures| {
                budget.failures = failures;
                (budget.backoff(0.0).as_millis(), budget.backoff(1.0).as_millis())
            })
            .collect();
        insta::assert_debug_snapshot!(pauses, @"
        [
            (
                125,
                250,
            ),
            (
                250,
                500,
            ),
            (
                500,
                1000,
            ),
            (
                1000,
                2000,
            ),
            (
                2000,
                4000,
            ),
            (
                2500,
                5000,
            ),
            (
                2500,
                5000,
            ),
        ]
        ");
    }

    fn failure(retry: Retry) -> Failure {
        let error = RegistryError::Status { action: "GET x".into(), status: 503, message: None };
        Failure { error, retry }
    }

    #[tokio::test]
    async fn patience_ends_unless_there_is_progress() {
        let pauses = Arc::default();
        let clock = Clock::recording(Arc::clone(&pauses));
        let mut budget = Budget::new(&Timing::default(), &clock);
        let mut attempts = 1;
        while budget.pause(failure(Retry::Backoff)).await.is_ok() {
            attempts += 1;
        }
        assert_eq!(attempts, Timing::default().attempts);

        let mut budget = Budget::new(&Timing::default(), &clock);
        for _ in 0..50 {
            budget.pause(failure(Retry::Backoff)).await.unwrap();
            budget.progressed();
        }

        let mut budget = Budget::new(&Timing::default(), &clock);
        pauses.lock().unwrap().clear();
        budget.pause(failure(Retry::After(Duration::from_secs(3)))).await.unwrap();
        assert!(pauses.lock().unwrap()[0] >= Duration::from_secs(3));
        let error = budget.pause(failure(Retry::After(Duration::from_secs(3600)))).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot GET x: the server asks to wait 3600 s");

        let mut budget = Budget::new(&Timing::default(), &clock);
        assert!(budget.pause(failure(Retry::Never)).await.is_err());
        let mut budget = Budget::new(&Timing::default(), &clock);
        budget.pause(failure(Retry::Unreachable)).await.unwrap();
        budget.pause(failure(Retry::Unreachable)).await.unwrap();
        assert!(budget.pause(failure(Retry::Unreachable)).await.is_err());
    }
}

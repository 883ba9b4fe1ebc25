//! Aggregators as they are watched. One that this version cannot read, because another one or
//! somebody without the rules wrote it, must not hide the others: it is as one that is gone, so that
//! nothing of it is touched, and what is wrong is told of it.

use futures::{Stream, StreamExt as _};
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::events::{Event as Told, EventType, Recorder};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use tracing::{debug, warn};

use crate::resource::{LogAggregator, LogAggregatorSpec};

/// The most characters of an event's note, which may have 1,024 bytes.
const NOTE_CHARS_MAX: usize = 256;

type Guarded = DeserializeGuard<LogAggregator>;

/// What happens to aggregators that can be read.
pub(super) fn watch(
    api: Api<Guarded>,
    config: watcher::Config,
    recorder: Recorder,
) -> impl Stream<Item = Result<Event<LogAggregator>, watcher::Error>> + Send {
    let events = watcher(api, config).default_backoff();
    events.filter_map(move |event| {
        let recorder = recorder.clone();
        async move {
            match event {
                Ok(event) => read(event, &recorder).await.map(Ok),
                Err(error) => Some(Err(error)),
            }
        }
    })
}

async fn read(event: Event<Guarded>, recorder: &Recorder) -> Option<Event<LogAggregator>> {
    match event {
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
        Event::InitApply(listed) => match listed.0 {
            Ok(aggregator) => Some(Event::InitApply(aggregator)),
            Err(_) => {
                tell(&listed, recorder).await;
                None
            }
        },
        Event::Apply(changed) => match changed.0 {
            Ok(aggregator) => Some(Event::Apply(aggregator)),
            Err(_) => {
                tell(&changed, recorder).await;
                Some(Event::Delete(gone(changed)))
            }
        },
        Event::Delete(deleted) => Some(Event::Delete(gone(deleted))),
    }
}

/// An aggregator that is gone, or is as if it were: of one that cannot be read nothing but its name.
fn gone(aggregator: Guarded) -> LogAggregator {
    let metadata = aggregator.meta().clone();
    let nameless = |_| LogAggregator { metadata, spec: LogAggregatorSpec::default(), status: None };
    aggregator.0.unwrap_or_else(nameless)
}

async fn tell(unreadable: &Guarded, recorder: &Recorder) {
    let Err(why) = &unreadable.0 else { return };
    let (name, namespace) = (unreadable.name_any(), unreadable.namespace());
    warn!(name, namespace, error = %why, "a LogAggregator cannot be read, and is left alone");
    let note = format!("this version of the operator cannot read it, and leaves it alone: {why}");
    let told = Told {
        type_: EventType::Warning,
        reason: "Unreadable".to_owned(),
        note: Some(note.chars().take(NOTE_CHARS_MAX).collect()),
        action: "Read".to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&told, &unreadable.object_ref(&())).await {
        debug!(%error, name, "an event could not be told");
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::events::Reporter;
    use kube::runtime::reflector;
    use serde_json::{Value, json};

    use super::*;
    use crate::example::aggregator;
    use crate::scripted::Server;

    const LIST: &str = "/apis/sheaf.dev/v1alpha1/logaggregators";

    fn recorder(server: &Server) -> Recorder {
        Recorder::new(server.client(), Reporter { controller: "test".into(), instance: None })
    }

    /// An aggregator as another version may write it.
    fn unreadable() -> Value {
        let mut object = serde_json::to_value(aggregator(json!({}))).unwrap();
        object["metadata"]["name"] = json!("odd");
        object["spec"]["aggregations"][0]["type"] = json!("Sums");
        object
    }

    fn guarded(object: Value) -> Guarded {
        serde_json::from_value(object).unwrap()
    }

    fn events(server: &Server) -> Vec<(Value, Value)> {
        let events = server.all("/events/");
        events.into_iter().map(|it| (it["regarding"]["name"].clone(), it["note"].clone())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_cannot_be_read_does_not_hide_the_others() {
        let server = Server::default();
        let items = json!([unreadable(), aggregator(json!({}))]);
        server.put(LIST, json!({"kind": "LogAggregatorList", "metadata": {}, "items": items}));
        let (store, writer) = reflector::store();
        let stream = watch(Api::all(server.client()), Default::default(), recorder(&server));
        let mut stream = std::pin::pin!(stream.reflect(writer));
        while store.state().is_empty() {
            stream.next().await.unwrap().unwrap();
        }
        let names: Vec<_> = store.state().iter().map(|it| it.name_any()).collect();
        assert_eq!(names, ["logs"]);
        let events = events(&server);
        let [(name, note)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(name, "odd");
        assert!(note.as_str().unwrap().contains("nknown variant Sums"), "{note}");
    }

    #[tokio::test]
    async fn one_that_cannot_be_read_any_more_is_left_alone() {
        let server = Server::default();
        let event = read(Event::Apply(guarded(unreadable())), &recorder(&server)).await;
        let Some(Event::Delete(gone)) = event else { panic!("{event:?}") };
        assert_eq!(
            (gone.name_any(), gone.namespace()),
            ("odd".to_owned(), Some("shop".to_owned()))
        );
        assert_eq!(events(&server).len(), 1);
        let event = read(Event::Delete(guarded(unreadable())), &recorder(&server)).await;
        assert!(matches!(event, Some(Event::Delete(_))));
        assert_eq!(events(&server).len(), 1, "nobody can do anything about it now");
    }
}

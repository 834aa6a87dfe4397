//! `POST /debug/log` of a real server: the log of single streams, on and off.

use std::fs::{self, File};

use serde_json::{Value, json};
use taskprof::pb::testing::StreamingOutputCallRequest;
use taskprof::pb::testing::test_service_client::TestServiceClient;
use tokio::sync::mpsc;
use tonic::Streaming;

use super::reference::connect;
use super::secrets::{ping, tokio_stream};
use super::server::{Answer, Server};

const DUPLEX: &str = "/grpc.testing.TestService/FullDuplexCall";

/// A stream on which each message is answered with one.
struct Duplex {
    send: mpsc::Sender<StreamingOutputCallRequest>,
    answers: Streaming<taskprof::pb::testing::StreamingOutputCallResponse>,
}

impl Duplex {
    /// Opens it, and waits until the server has answered once.
    async fn open(server: &Server) -> Self {
        let mut client = TestServiceClient::new(connect(server.grpc).await);
        let (send, receive) = mpsc::channel(1);
        let answers = client.full_duplex_call(tokio_stream(receive)).await.expect("a stream");
        let mut duplex = Self { send, answers: answers.into_inner() };
        duplex.ping().await;
        duplex
    }

    async fn ping(&mut self) {
        self.send.send(ping()).await.expect("it takes messages");
        self.answers.message().await.expect("no status").expect("an answer");
    }
}

/// What the server says, and with which status.
fn log(server: &Server, query: &str) -> (u16, Value) {
    let answer = Answer::of(server.http, "POST", &format!("/debug/log?{query}"));
    (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_streams_are_logged_while_they_are_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stderr");
    let server = Server::logging(&["serve"], File::create(&path).expect("a file"));
    let (mut one, mut other) = (Duplex::open(&server).await, Duplex::open(&server).await);
    // What was seen a moment ago may be told again.
    let logged_are = |wanted: [bool; 2]| {
        let live = "/debug/streams?sort=id&filter=is:live%20method:FullDuplexCall";
        let told = server.wait_for(live, "streams that are logged so", |json| {
            let streams = json["streams"].as_array().expect("streams").iter();
            streams.map(|one| one["logged"] == true).eq(wanted)
        });
        [0, 1].map(|n| told["streams"][n]["id"].as_str().expect("an id").to_owned())
    };
    let [first, second] = &logged_are([false, false]);
    // How many lines each of them has. A line is written before its message
    // goes on.
    let lines = || {
        let text = fs::read_to_string(&path).expect("the log");
        [first, second].map(|id| {
            let stream = format!("stream={id} ");
            text.lines().filter(|line| line.contains(&stream) && line.contains(DUPLEX)).count()
        })
    };
    assert_eq!(lines(), [0, 0]);

    let told = log(&server, &format!("stream={first}&on=true"));
    assert_eq!(told, (200, json!({"on": true, "streams": 1, "stream": first, "method": null})));
    logged_are([true, false]);
    one.ping().await;
    other.ping().await;
    assert_eq!(lines(), [2, 0], "a Recv and a Send");

    let told = log(&server, &format!("method={DUPLEX}&on=true"));
    assert_eq!(told, (200, json!({"on": true, "streams": 2, "stream": null, "method": DUPLEX})));
    assert_eq!(log(&server, &format!("stream={first}&on=false")).0, 200);
    one.ping().await;
    other.ping().await;
    assert_eq!(lines(), [2, 2]);

    let (status, told) = log(&server, &format!("method={DUPLEX}&on=false"));
    assert_eq!((status, &told["on"]), (200, &json!(false)));
    logged_are([false, false]);
    one.ping().await;
    other.ping().await;
    assert_eq!(lines(), [2, 2]);

    // One that has ended is as unknown as one that never was.
    drop(one);
    server.wait_for("/debug/streams?filter=is:live", "end of the first", |json| {
        json["streams"].as_array().is_some_and(|all| all.iter().all(|one| one["id"] != **first))
    });
    for id in [first.as_str(), "987654321"] {
        let (status, told) = log(&server, &format!("stream={id}&on=true"));
        assert_eq!(status, 404, "{told}");
        assert!(told["error"].as_str().is_some_and(|error| error.contains(id)), "{told}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_what_does() {
    let server = Server::with_faults(&[]);
    for query in [
        "",
        "on=true",
        "stream=1",
        "stream=1&on=maybe",
        "stream=one&on=true",
        "stream=-1&on=true",
        "method=FullDuplexCall&on=true",
        "stream=1&method=/a.B/C&on=true",
        "stream=1&on=true&loud=true",
    ] {
        let (status, told) = log(&server, query);
        assert_eq!(status, 400, "{query}: {told}");
        assert!(told["expected"].is_string(), "{query}: {told}");
    }
}

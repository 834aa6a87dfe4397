//! channelz, asked by gRPC's own client for it in another language.

use std::path::Path;
use std::process::Command;

use taskprof::Profiler;
use taskprof::pb::echo::EchoRequest;
use taskprof::pb::echo::echo_client::EchoClient;
use taskprof::pb::testing::Empty;
use taskprof::pb::testing::test_service_client::TestServiceClient;
use taskprof::reference::Reference;
use tokio::net::TcpListener;

use super::server::{tool, tools_folder};

/// A server that is its own client, so that all seven calls have something to
/// tell, and a Python that asks it.
#[test]
fn a_channelz_client_in_python_is_told_what_the_debug_endpoints_say() {
    let python = tools_folder().join("python/bin/python");
    let Some(python) = tool(&[python.to_str().expect("path")]) else { return };
    let profiler = Profiler::builder().http("127.0.0.1:0").start().expect("a profiler");
    let http = profiler.http_addr().expect("its address").to_string();
    let runtime = profiler
        .runtime(tokio::runtime::Builder::new_multi_thread())
        .enable_all()
        .build()
        .expect("a runtime");
    let (address, client) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let channelz = profiler.channelz_service();
        let reference = Reference::with(false, Some(channelz)).await.expect("the services");
        let serving = profiler.clone();
        tokio::spawn(async move { serving.serve(reference.routes, listener).await });
        let endpoint = profiler.endpoint(format!("http://{address}")).expect("an address");
        let client = profiler.connect(endpoint).await.expect("a connection");
        let mut echo = EchoClient::new(client.clone());
        let message = "hello".to_owned();
        echo.unary_echo(EchoRequest { message }).await.expect("an answer");
        let mut interop = TestServiceClient::new(client.clone());
        interop.unimplemented_call(Empty {}).await.expect_err("there is no such method");
        (address, client)
    });

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/channelz.py");
    let output = Command::new(python).arg(script).args([&address, &http]).output();
    let output = output.expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(said.trim_end().ends_with("8 passed, 0 failed"), "{said}{error}");
    drop(client);
}

//! Shows that glommio 0.9.0 goes to sleep for ever with runnable tasks, and that the patched copy doesn't.
//!
//! `hang registry` and `hang patched` run the same tasks under a preempt timer so short that it mostly fires before
//! the first task gets its turn, the event that under load a 1 ms timer meets every few seconds. Exit status: 0 when the
//! tasks end, 3 when they don't within the time limit.

use std::sync::mpsc;
use std::time::Duration;

const TIME_LIMIT: Duration = Duration::from_secs(10);
const HUNG: i32 = 3;

/// Two executors that exchange requests and responses; the end of both is told to `$done`.
macro_rules! exchange {
    ($glommio:ident, $done:expr) => {{
        use $glommio::channels::shared_channel::new_bounded;
        let (request_sender, request_receiver) = new_bounded::<u32>(4);
        let (response_sender, response_receiver) = new_bounded::<u32>(4);
        let builder = || {
            $glommio::LocalExecutorBuilder::default()
                .preempt_timer(Duration::from_micros(1))
                .io_memory(256 * 1024)
                .ring_depth(32)
        };
        let server_done = $done.clone();
        let server = builder().spawn(move || async move {
            let responses = $glommio::spawn_local(response_sender.connect());
            let requests = request_receiver.connect().await;
            let responses = responses.await;
            while let Some(number) = requests.recv().await {
                responses.send(number + 1).await.expect("the client waits for it");
            }
            server_done.send(()).expect("main waits");
        });
        let client_done = $done;
        let client = builder().spawn(move || async move {
            let responses = $glommio::spawn_local(response_receiver.connect());
            let requests = request_sender.connect().await;
            let responses = responses.await;
            for number in 0..1000 {
                requests.send(number).await.expect("the server runs");
                assert_eq!(responses.recv().await, Some(number + 1));
                $glommio::executor().yield_now().await;
            }
            client_done.send(()).expect("main waits");
        });
        (server.expect("a thread starts"), client.expect("a thread starts"))
    }};
}

fn main() {
    let (done, ends) = mpsc::channel();
    let which = std::env::args().nth(1).unwrap_or_default();
    let _handles: Box<dyn std::any::Any> = match which.as_str() {
        "patched" => Box::new(exchange!(patched, done)),
        "registry" => Box::new(exchange!(registry, done)),
        _ => panic!("say which glommio: patched or registry"),
    };
    for _ in 0..2 {
        match ends.recv_timeout(TIME_LIMIT) {
            Ok(()) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                println!("{which}: asleep with runnable tasks for {} s", TIME_LIMIT.as_secs());
                std::process::exit(HUNG);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{which}: an executor failed"),
        }
    }
    println!("{which}: 1,000 requests answered");
    std::process::exit(0);
}

use super::*;
use crate::testing::Happening;

async fn forecast(house: &House, book: Book, target: VertexId) -> String {
    let graph = Arc::new(book.graph);
    let explained = house.solver.explain(Arc::clone(&graph), target, CancellationToken::new()).await.unwrap();
    let lines = explained.into_iter().map(|step| {
        let text = match step.state {
            Forecast::Cached => "cached".to_owned(),
            Forecast::Nothing => "nothing to run".to_owned(),
            Forecast::WouldRun(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                format!("would run: {}", reasons.join("; "))
            }
            Forecast::Depends(on) => format!("depends on {}", graph.vertex(on).info.name),
        };
        format!("{}: {text}", graph.vertex(step.vertex).info.name)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn book(first: &str, last: &str) -> (Book, VertexId) {
    let mut book = Book::default();
    let base = book.image("debian:12");
    let context = book.context();
    let tools = book.run(base, &[first]);
    let sources = book.copy(Some(tools), context, "main.c", "/src");
    let build = book.run(sources, &["copy /src/main.c=/app"]);
    let copy = book.copy(None, build, "/app", "/bin");
    let target = book.run(copy, &[last]);
    (book, target)
}

#[tokio::test]
async fn an_explanation_runs_nothing_and_says_what_would() {
    let house = House::new();
    house.worker.write("context", "main.c", "int main");
    let (fresh, target) = book("write gcc=1", "write a=1");
    insta::assert_snapshot!(forecast(&house, fresh, target).await, @"
    FROM debian:12: would run: never built
    context: nothing to run
    RUN write gcc=1: would run: never built
    COPY main.c /src: would run: never built
    RUN copy /src/main.c=/app: would run: never built
    COPY /app /bin: would run: never built
    RUN write a=1: would run: never built
    ");
    let (same, target) = book("write gcc=1", "write a=1");
    house.solve(same, target).await.unwrap();
    house.told();
    house.worker.take_happenings();

    let (same, target) = book("write gcc=1", "write a=1");
    assert!(
        forecast(&house, same, target)
            .await
            .lines()
            .all(|line| line.ends_with(": cached") || line.starts_with("context"))
    );

    let (last, target) = book("write gcc=1", "write a=2");
    insta::assert_snapshot!(forecast(&house, last, target).await, @"
    FROM debian:12: cached
    context: nothing to run
    RUN write gcc=1: cached
    COPY main.c /src: cached
    RUN copy /src/main.c=/app: cached
    COPY /app /bin: cached
    RUN write a=2: would run: instruction changed: RUN write a=1 → RUN write a=2
    ");

    house.worker.write("context", "main.c", "int main2");
    let (file, target) = book("write gcc=1", "write a=1");
    insta::assert_snapshot!(forecast(&house, file, target).await, @"
    FROM debian:12: cached
    context: nothing to run
    RUN write gcc=1: cached
    COPY main.c /src: would run: changed: main.c
    RUN copy /src/main.c=/app: depends on COPY main.c /src
    COPY /app /bin: depends on COPY main.c /src
    RUN write a=1: depends on COPY main.c /src
    ");
    let happenings = house.worker.take_happenings();
    assert!(happenings.iter().all(|h| matches!(h, Happening::Read(_))), "{happenings:?}");
    assert!(house.told().is_empty(), "an explanation shows no steps");
}

/// A step before it is written differently, but what is known of its inputs speaks for a hit by content.
#[tokio::test]
async fn a_hit_by_content_is_foreseen_where_the_inputs_are_there() {
    let house = House::new();
    house.worker.write("context", "main.c", "int main");
    for first in ["write gcc=1", "log other; write gcc=1"] {
        let commands: Vec<&str> = first.split("; ").collect();
        let mut book = Book::default();
        let base = book.image("debian:12");
        let target = book.run(base, &commands);
        house.solve(book, target).await.unwrap();
    }
    let on = |commands: &[&str]| {
        let mut book = Book::default();
        let base = book.image("debian:12");
        let tools = book.run(base, commands);
        let target = book.run(tools, &["write app=1"]);
        (book, target)
    };
    let (one, target) = on(&["write gcc=1"]);
    house.solve(one, target).await.unwrap();
    let (other, target) = on(&["log other", "write gcc=1"]);
    insta::assert_snapshot!(forecast(&house, other, target).await, @"
    FROM debian:12: cached
    RUN log other; write gcc=1: cached
    RUN write app=1: cached
    ");
}

/// What speaks against the newest records does not against one that lies far back.
#[tokio::test]
async fn an_older_result_may_be_what_a_step_comes_back_to() {
    let house = House::new();
    let on = |first: &str| {
        let mut book = Book::default();
        let base = book.image("debian:12");
        let context = book.context();
        let tools = book.run(base, &[first, "write gcc=1"]);
        let target = book.copy(Some(tools), context, "main.c", "/src");
        (book, target)
    };
    for version in 0..20 {
        house.worker.write("context", "main.c", &format!("int main{version}"));
        let (book, target) = on("log a");
        house.solve(book, target).await.unwrap();
    }
    house.worker.write("context", "main.c", "int main0");
    let (book, target) = on("log b");
    insta::assert_snapshot!(forecast(&house, book, target).await, @"
    FROM debian:12: cached
    context: nothing to run
    RUN log b; write gcc=1: would run: instruction changed: RUN log a; write gcc=1 → RUN log b; write gcc=1
    COPY main.c /src: depends on RUN log b; write gcc=1
    ");
    let (book, target) = on("log b");
    assert_eq!(house.runs(book, target).await, ["RUN log b; write gcc=1"]);
}

#[tokio::test]
async fn graphs_can_be_printed() {
    let house = House::new();
    house.worker.write("context", "main.c", "int main");
    let (book, target) = book("write gcc=\"1\"", "fail here");
    let graph = Arc::new(book.graph);
    let solve = house.solver.solve(Arc::clone(&graph), target, CancellationToken::new(), |_, _| {});
    let mut steps = solve.await.unwrap_err().steps;
    for step in &mut steps {
        step.duration = Duration::from_millis(u64::from(step.vertex.0) * 1500);
        step.started = step.started.map(|_| std::time::UNIX_EPOCH + Duration::from_secs(1));
        step.waited = Duration::ZERO;
        step.key = None;
    }
    insta::assert_snapshot!(crate::graph::dot(&graph, &steps), @r#"
    digraph build {
      rankdir=LR;
      node [shape=box, style="rounded,filled", fillcolor=white];
      s0 [label="FROM debian:12\nran", fillcolor=lightblue];
      s1 [label="context\ndone, 1.500 s", fillcolor=palegreen];
      s2 [label="RUN write gcc=\"1\"\nran, 3.000 s", fillcolor=lightblue];
      s3 [label="COPY main.c /src\nran, 4.500 s", fillcolor=lightblue];
      s4 [label="RUN copy /src/main.c=/app\nran, 6.000 s", fillcolor=lightblue];
      s5 [label="COPY /app /bin\nran, 7.500 s", fillcolor=lightblue];
      s6 [label="RUN fail here\nfailed, 9.000 s", fillcolor=salmon];
      s0 -> s2;
      s2 -> s3;
      s1 -> s3 [style=dashed, label="main.c"];
      s3 -> s4;
      s4 -> s5 [style=dashed, label="/app"];
      s5 -> s6;
    }
    "#);
    let json: serde_json::Value = serde_json::from_str(&crate::graph::json(&graph, &steps)).unwrap();
    insta::assert_snapshot!(serde_json::to_string(&json["steps"][6]).unwrap(), @r#"{"durationMs":9000.0,"id":6,"inputs":[{"step":5}],"kind":"run","name":"RUN fail here","reasons":["never built"],"startedMs":1000,"state":"failed","waitedMs":0.0}"#);
    let bare: serde_json::Value = serde_json::from_str(&crate::graph::json(&graph, &[])).unwrap();
    insta::assert_snapshot!(serde_json::to_string(&bare["steps"][3]).unwrap(), @r#"{"id":3,"inputs":[{"step":2},{"paths":["main.c"],"step":1}],"kind":"copy","name":"COPY main.c /src"}"#);
}

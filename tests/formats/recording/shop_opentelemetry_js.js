// The shop on Node.js, watched by OpenTelemetry's own instrumentation of http.
//
// `front` asks `back` for the same user three times, and for a score that takes too long.
"use strict";

const [, , role, port, backPort, receiver] = process.argv;

const { NodeSDK } = require("@opentelemetry/sdk-node");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-http");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");

new NodeSDK({
  serviceName: role,
  traceExporter: new OTLPTraceExporter({ url: receiver }),
  instrumentations: [
    new HttpInstrumentation({ ignoreIncomingRequestHook: (request) => request.url === "/ready" }),
  ],
}).start();

const http = require("http");

const SCORE_MS = 800;
const PATIENCE_MS = 500;

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

function get(path, timeout = 5000) {
  return new Promise((done, fail) => {
    const request = http.get({ host: "127.0.0.1", port: backPort, path }, (answer) => {
      answer.resume();
      answer.on("end", done);
    });
    request.setTimeout(timeout, () => request.destroy(new Error("timeout")));
    request.on("error", fail);
  });
}

async function checkout() {
  for (let time = 0; time < 3; time++) await get("/users/7");
  await get("/score", PATIENCE_MS).catch(() => undefined);
}

const answers = {
  "/ready": () => undefined,
  "/checkout": checkout,
  "/users/7": () => wait(40),
  "/score": () => wait(SCORE_MS),
};

http
  .createServer(async (request, response) => {
    await answers[request.url]();
    response.end("fine");
  })
  .listen(port, "127.0.0.1");

// SurrealDB's engine (RocksDB on disk) inside a Node service: POST /notes inserts a row, each WebSocket on /follow has
// its own LIVE SELECT with a filter, whose notifications it gets as JSON. No authentication.
// Usage: node service.mjs PORT FOLDER

import { createServer } from "node:http";
import { createNodeEngines } from "@surrealdb/node";
import { Surreal } from "surrealdb";
import { WebSocketServer } from "ws";

const [port, folder] = process.argv.slice(2);
const database = new Surreal({ engines: createNodeEngines() });
await database.connect(`rocksdb://${folder}`);
await database.use({ namespace: "bench", database: "bench" });
await database.query(`
  DEFINE TABLE notes SCHEMAFULL;
  DEFINE FIELD room ON notes TYPE string;
  DEFINE FIELD author ON notes TYPE string;
  DEFINE FIELD body ON notes TYPE string;
  DEFINE FIELD stars ON notes TYPE int;
`);

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    let status = 200;
    let answer = '{"status":"success","row_count":1}';
    try {
      const { id, ...columns } = JSON.parse(Buffer.concat(chunks));
      await database.query("CREATE type::record('notes', $id) CONTENT $columns RETURN NONE", { id, columns });
    } catch (error) {
      status = 500;
      answer = JSON.stringify({ status: "error", message: String(error) });
    }
    response.writeHead(status, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(answer) });
    response.end(answer);
  });
});

new WebSocketServer({ server, path: "/follow" }).on("connection", async (client) => {
  const [id] = await database.query("LIVE SELECT * FROM notes WHERE room = 'room-7' AND stars >= 0");
  const live = await database.liveOf(id);
  live.subscribe(({ action, value }) => client.send(JSON.stringify({ action, value })));
  client.on("close", () => live.kill());
  client.send('{"type":"subscribed"}');
});

server.listen(Number(port), "127.0.0.1");
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(0));

// A client made with the official MCP SDK for TypeScript: starts a worker, does what an MCP host does, prints what it saw as JSON.
//
//     node tests/.node/mcp_client.mjs COMMAND...
//
// tests/support/node.py puts it beside the packages that it imports.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

const [command, ...args] = process.argv.slice(2);
const client = new Client({ name: "tests", version: "1" });
const seen = { progress: [] };

function conversation(text, model = "offline/echo") {
  return { model, messages: [{ role: "user", content: text }] };
}

async function call(name, args, options) {
  try {
    const result = await client.callTool({ name, arguments: args }, undefined, options);
    return { text: result.content[0].text, structured: result.structuredContent, failed: result.isError };
  } catch (error) {
    return { code: error.code ?? null, text: String(error) };
  }
}

// Cancels a chat whose provider sends a first piece and then nothing.
async function cancelInFlight() {
  const controller = new AbortController();
  const onprogress = ({ progress, message }) => {
    seen.progress.push([progress, message]);
    controller.abort();
  };
  const options = { signal: controller.signal, onprogress };
  const ended = await call("chat", conversation("hello", "openai/hang-after-first"), options);
  return ended.structured === undefined;
}

const transport = new StdioClientTransport({ command, args, env: process.env });
let revision = null;
transport.setProtocolVersion = (version) => {
  revision = version;
};
await client.connect(transport);
seen.revision = revision;
seen.server = client.getServerVersion()?.name;
seen.capabilities = client.getServerCapabilities();
seen.tools = (await client.listTools()).tools.map((tool) => tool.name);
seen.chat = await call("chat", conversation("two words"));
seen.count = await call("count_tokens", conversation("two words"));
seen.failed = await call("chat", conversation("hello", "offline/nothing"));
seen.unknown = await call("no_such_tool", {});
seen.cancelled = await cancelInFlight();
seen.after = await call("chat", conversation("still here"));
await client.close();
process.stdout.write(JSON.stringify(seen) + "\n");

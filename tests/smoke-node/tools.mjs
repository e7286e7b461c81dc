// Streams a turn in which the agent calls a tool, then approves the call of another one.
// BASE_URL (with /v1), TOKEN and MODEL say where, who and with whom; LOOK and ORDER are the inputs. Prints what it got as JSON.
import OpenAI from "openai";

const { BASE_URL, TOKEN, MODEL, LOOK, ORDER } = process.env;
const client = new OpenAI({ baseURL: BASE_URL, apiKey: TOKEN, maxRetries: 0, timeout: 120_000 });

const events = [];
let response = null;
for await (const event of client.responses.stream({ model: MODEL, input: LOOK })) {
  if (event.type === "response.output_item.done") events.push(event.item.type);
  if (event.type === "response.completed") response = event.response;
}

const asking = await client.responses.create({ model: MODEL, previous_response_id: response.id, input: ORDER });
const asked = asking.output.find((item) => item.type === "mcp_approval_request");
const done = await client.responses.create({
  model: MODEL,
  previous_response_id: asking.id,
  input: [{ type: "mcp_approval_response", approval_request_id: asked.id, approve: false, reason: "not today" }],
});
const items = [];
for await (const item of client.conversations.items.list(done.conversation.id, { order: "asc" })) items.push(item.type);

console.log(
  JSON.stringify({
    events,
    streamed: response.output.map((item) => item.type),
    asking: asking.status,
    same: asking.id === done.id,
    done: done.status,
    text: done.output_text,
    items,
  }),
);

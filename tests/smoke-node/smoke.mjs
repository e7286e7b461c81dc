// Holds a conversation of three turns and a stream, over responses and over chat completions.
// BASE_URL (with /v1), TOKEN and MODEL say where, who and with whom. Prints what it got as one JSON document.
import OpenAI from "openai";

const { BASE_URL, TOKEN, MODEL } = process.env;
const client = new OpenAI({ baseURL: BASE_URL, apiKey: TOKEN, maxRetries: 0, timeout: 120_000 });

async function responses() {
  const conversation = await client.conversations.create({ metadata: { agent: MODEL } });
  const ask = (input, options = {}) =>
    client.responses.create({ model: MODEL, conversation: conversation.id, input, ...options });
  await ask("My name is Ada.");
  await ask("say: noted");
  const recalled = (await ask("What is my name?")).output_text;
  let streamed = "";
  let final = "";
  let usage = null;
  for await (const event of await ask("say: word by word", { stream: true })) {
    if (event.type === "response.output_text.delta") streamed += event.delta;
    if (event.type === "response.completed") {
      final = event.response.output.map((item) => item.content.map((part) => part.text).join("")).join("");
      usage = event.response.usage;
    }
  }
  const items = [];
  for await (const item of client.conversations.items.list(conversation.id, { order: "asc" })) items.push(item.role);
  await client.conversations.delete(conversation.id);
  return { recalled, streamed, final, usage, items };
}

async function previousResponse() {
  const first = await client.responses.create({ model: MODEL, input: "My name is Grace." });
  const second = await client.responses.create({
    model: MODEL,
    previous_response_id: first.id,
    input: "What is my name?",
  });
  return { recalled: second.output_text };
}

async function chat() {
  const conversation = await client.conversations.create({ metadata: { agent: MODEL } });
  const ask = (content, options = {}) =>
    client.chat.completions.create({
      model: MODEL,
      messages: [{ role: "user", content }],
      metadata: { conversation: conversation.id },
      ...options,
    });
  await ask("My name is Ada.");
  await ask("say: noted");
  const recalled = (await ask("What is my name?")).choices[0].message.content;
  let streamed = "";
  let usage = null;
  const stream = await ask("say: word by word", { stream: true, stream_options: { include_usage: true } });
  for await (const chunk of stream) {
    streamed += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  await client.conversations.delete(conversation.id);
  return { recalled, streamed, usage };
}

const result = {
  models: (await client.models.list()).data.map((model) => model.id),
  responses: await responses(),
  previousResponse: await previousResponse(),
  chat: await chat(),
};
console.log(JSON.stringify(result, null, 2));

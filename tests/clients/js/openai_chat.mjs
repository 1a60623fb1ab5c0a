import OpenAI from "openai";

const { url, model, messages } = JSON.parse(process.argv[2]);
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const names = (await client.models.list()).data.map((each) => each.id);
const asked = { model, messages, max_tokens: 12, seed: 1 };
const whole = await client.chat.completions.create(asked);
let text = "", total = 0;
const stream = await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } });
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  total = chunk.usage?.total_tokens ?? total;
}
const { output_text: output } = await client.responses.create({ model, input: "Hello", max_output_tokens: 8 });
console.log(JSON.stringify({ names, whole: whole.choices[0].message.content, text, total, output }));

import OpenAI from "openai";

const { url, talker, caller, messages, tool, tooLong } = JSON.parse(process.argv[2]);
const client = new OpenAI({ baseURL: url, apiKey: "none", maxRetries: 0 });
const demanded = { tools: [tool], tool_choice: "required", parallel_tool_calls: false };
const reply = await client.chat.completions.create({ model: caller, messages, ...demanded, max_tokens: 200, seed: 1 });

async function refused(body) {
  try {
    await client.chat.completions.create(body);
  } catch (error) {
    return { kind: error.constructor.name, code: error.code };
  }
}

const wrong = await refused({ model: "nobody", messages });
const long = await refused({ model: talker, messages: tooLong });
console.log(JSON.stringify({ call: reply.choices[0].message.tool_calls[0].function, wrong, long }));

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const { url, talker } = JSON.parse(process.argv[2]);
const swarm = createOpenAICompatible({ name: "swarm", baseURL: url });
const asked = { model: swarm(talker), prompt: "Hello", maxOutputTokens: 12, seed: 1 };
const whole = await generateText(asked);
let text = "";
for await (const part of streamText(asked).textStream) text += part;
console.log(JSON.stringify({ whole: whole.text, text, usage: whole.usage }));

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, tool } from "ai";

const { url, talker, caller, messages, schema } = JSON.parse(process.argv[2]);
const swarm = createOpenAICompatible({ name: "swarm", baseURL: url, supportsStructuredOutputs: true });
const bounds = { maxOutputTokens: 200, seed: 1 };
const prompt = "The weather in Paris.";
const made = await generateObject({ model: swarm(talker), schema: jsonSchema(schema), prompt, ...bounds });
const tools = { get_weather: tool({ description: "The weather", inputSchema: jsonSchema(schema) }) };
const called = await generateText({ model: swarm(caller), messages, tools, toolChoice: "required", ...bounds });
console.log(JSON.stringify({ object: made.object, calls: called.toolCalls.map((call) => [call.toolName, call.input]) }));

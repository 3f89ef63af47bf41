import { createContentParser } from '@langchain/core/language_models/structured_output';
import type { AIMessageChunk } from '@langchain/core/messages';
import { RunnableLambda } from '@langchain/core/runnables';
import { toJsonSchema } from '@langchain/core/utils/json_schema';
import { isSerializableSchema } from '@langchain/core/utils/standard_schema';
import { isInteropZodSchema } from '@langchain/core/utils/types';
import type { ResponseSchema } from './call_options.js';

/** A zod schema, another schema that can be written as JSON schema, or a JSON schema. */
export type OutputSchema = Parameters<typeof createContentParser>[0];

const isSchemaObject = (schema: OutputSchema) => isInteropZodSchema(schema) || isSerializableSchema(schema);

/** The schema in the form that is sent. The name is that of the tool where a tool is sent. */
export function responseSchemaOf(schema: OutputSchema, name: string | undefined): ResponseSchema {
  const json = (isSchemaObject(schema) ? toJsonSchema(schema as never) : schema) as Record<string, unknown>;
  const { $schema: _, title, description, ...rest } = json;
  const known = typeof title === 'string' && /^[A-Za-z0-9_-]{1,64}$/.test(title) ? title : 'extract';
  return {
    name: name ?? known,
    description: typeof description === 'string' ? description : undefined,
    schema: rest,
  };
}

/** Reads the value from a response: the arguments of the tool, or the text. Throws if it does not fit a zod schema. */
export function outputParser(schema: OutputSchema, name: string) {
  const parser = createContentParser(schema as never);
  return RunnableLambda.from(({ tool_calls = [], text }: AIMessageChunk) => {
    const call = tool_calls.find((one) => one.name === name);
    return parser.parse(call ? JSON.stringify(call.args) : text);
  });
}

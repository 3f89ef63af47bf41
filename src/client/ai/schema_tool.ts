import type { AttemptContext } from '../runtime/model_call.js';
import type { HopDialect } from './hop_dialect.js';
import type { CallOptions, Content, FunctionTool, GenerateResult, StreamPart } from './sdk_types.js';

const NAME = 'json';

/**
 * A JSON schema as a tool, for a model without structured output: the model calls the tool, and its arguments are the
 * response. The tool is forced if the model supports that.
 */
export interface SchemaTool {
  /** The options of the call with the tool in place of the schema. */
  readonly options: CallOptions;
  /** A result with the arguments of the tool as text. */
  result(result: GenerateResult): GenerateResult;
  /** The parts of a stream in place of a part. Keep one for each stream. */
  part(part: StreamPart): StreamPart[];
}

/** The schema tool for a hop; undefined if the call has no schema, or its provider package expresses it. */
export function schemaTool(options: CallOptions, { hop }: AttemptContext, dialect: HopDialect): SchemaTool | undefined {
  const { responseFormat, tools = [], toolChoice } = options;
  if (responseFormat?.type !== 'json' || responseFormat.schema === undefined) return undefined;
  const { supports_structured_output, supports_functions, supports_forced_tool_choice } = hop.model;
  if (dialect.expressesSchemas || supports_structured_output !== false || supports_functions === false)
    return undefined;
  const name = freeName(tools);
  const description = responseFormat.description ?? 'Respond with a JSON object. The arguments are the whole response.';
  const tool: FunctionTool = { type: 'function', name, description, inputSchema: responseFormat.schema };
  const alone = tools.length === 0 || toolChoice?.type === 'none';
  const forced = alone ? ({ type: 'tool', toolName: name } as const) : ({ type: 'required' } as const);
  const choice = supports_forced_tool_choice === false ? ({ type: 'auto' } as const) : forced;
  const used = alone ? [tool] : [...tools, tool];
  return {
    options: { ...options, tools: used, toolChoice: choice, responseFormat: undefined },
    result: (result) => asText(result, name),
    part: partMapper(name),
  };
}

function freeName(tools: NonNullable<CallOptions['tools']>): string {
  let name = NAME;
  while (tools.some((tool) => tool.name === name)) name += '_';
  return name;
}

/** The finish reason without the schema tool: the response is complete. */
const finishOf = (
  finishReason: GenerateResult['finishReason'],
  hasOtherCall: boolean,
): GenerateResult['finishReason'] =>
  finishReason.unified === 'tool-calls' && !hasOtherCall ? { ...finishReason, unified: 'stop' } : finishReason;

function asText(result: GenerateResult, name: string): GenerateResult {
  const isSchema = (part: Content) => part.type === 'tool-call' && part.toolName === name;
  if (!result.content.some(isSchema)) return result;
  const content = result.content.map(
    (part): Content => (part.type === 'tool-call' && isSchema(part) ? { type: 'text', text: part.input } : part),
  );
  const hasOtherCall = content.some(({ type }) => type === 'tool-call');
  return { ...result, content, finishReason: finishOf(result.finishReason, hasOtherCall) };
}

function partMapper(name: string): (part: StreamPart) => StreamPart[] {
  const streamed = new Set<string>();
  let [isUsed, hasOtherCall] = [false, false];
  return (part) => {
    switch (part.type) {
      case 'tool-input-start':
        if (part.toolName !== name) return [part];
        streamed.add(part.id);
        return [{ type: 'text-start', id: part.id }];
      case 'tool-input-delta':
        return [streamed.has(part.id) ? { type: 'text-delta', id: part.id, delta: part.delta } : part];
      case 'tool-input-end':
        return [streamed.has(part.id) ? { type: 'text-end', id: part.id } : part];
      case 'tool-call': {
        if (part.toolName !== name) hasOtherCall = true;
        if (part.toolName !== name) return [part];
        isUsed = true;
        const { toolCallId: id, input: delta } = part;
        if (streamed.has(id)) return [];
        return [
          { type: 'text-start', id },
          { type: 'text-delta', id, delta },
          { type: 'text-end', id },
        ];
      }
      case 'finish':
        return [isUsed ? { ...part, finishReason: finishOf(part.finishReason, hasOtherCall) } : part];
      default:
        return [part];
    }
  };
}

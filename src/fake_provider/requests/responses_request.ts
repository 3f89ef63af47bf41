import type { Credential } from '../credential.js';
import { type ProviderName, providers } from '../providers.js';
import { invalidRequest, Rejection } from '../responses/provider_error.js';
import { type ModelRequest, Prompt, type ResponseFormat, type Tool, type ToolChoice } from './model_request.js';
import { checkModelParameters, type ModelRule } from './model_rules.js';
import { checkParameters, type Fields, isFields, RESPONSES_PARAMETERS } from './parameters.js';
import { checkImageUrl, checkJsonWord, checkName, checkSchema, namedChoice } from './request_checks.js';
import type { StoredResponses } from './stored_responses.js';
import { missingField, unsupportedParameter, wrongType, wrongValue } from './wording.js';

/** What the check of a request needs to know about earlier requests. */
export interface ResponsesContext {
  readonly credential: Credential;
  readonly stored: StoredResponses;
}

/** Reads a body of the Responses API. Throws a Rejection, as the provider words it. */
export function readResponsesRequest(
  provider: ProviderName,
  model: string,
  body: Fields,
  rule: ModelRule,
  context: ResponsesContext,
): ModelRequest {
  const { wording, rejectsUnknownParameters } = providers[provider];
  checkParameters(body, RESPONSES_PARAMETERS, wording, rejectsUnknownParameters);
  const reasoning = isFields(body['reasoning']) ? body['reasoning'] : {};
  checkModelParameters(body, rule, wording, reasoning['effort']);
  if (reasoning['effort'] && rule.rejects?.includes('reasoning_effort'))
    throw unsupportedParameter(wording, 'reasoning.effort');
  checkPrevious(body['previous_response_id'], context);
  const prompt = new Prompt();
  if (typeof body['instructions'] === 'string') prompt.add(body['instructions']);
  const last = new InputReader(provider, rule, context, prompt, body['previous_response_id'] != null).read(
    body['input'],
  );
  const tools = readTools(provider, body['tools']);
  const include = Array.isArray(body['include']) ? body['include'] : [];
  return {
    api: 'responses',
    provider,
    model,
    stream: body['stream'] === true,
    includeUsage: true,
    prompt: prompt.text,
    inputTokens: prompt.tokens,
    tools,
    toolChoice: readToolChoice(provider, body['tool_choice'], tools, rule),
    followsToolResult: last === 'function_call_output',
    isPrefilled: last === 'assistant',
    format: readFormat(provider, body['text'], prompt.text),
    maxTokens: (body['max_output_tokens'] ?? undefined) as number | undefined,
    stop: [],
    showsReasoning: true,
    store: body['store'] !== false,
    encryptsReasoning: include.includes('reasoning.encrypted_content'),
  };
}

function checkPrevious(id: unknown, { credential, stored }: ResponsesContext): void {
  if (typeof id !== 'string' || stored.hasResponse(credential, id)) return;
  throw invalidRequest(
    `Previous response with id '${id}' not found.`,
    'previous_response_not_found',
    'previous_response_id',
  );
}

const ROLES = ['assistant', 'system', 'developer', 'user'];
const ITEMS = ['message', 'reasoning', 'function_call', 'function_call_output', 'item_reference'];
/** Items of tools that the provider runs; they are accepted and not checked. */
const SERVER_ITEM = /_call(_output)?$|^(compaction|mcp_\w+)$/;
const PARTS = ['input_text', 'input_image', 'input_file', 'input_audio', 'output_text', 'refusal'];

/** Reads the input of a request of the Responses API. */
class InputReader {
  /** The function calls of the input that have no output so far, and those that have one. */
  private readonly open = new Set<string>();
  private readonly known = new Set<string>();

  constructor(
    private readonly provider: ProviderName,
    private readonly rule: ModelRule,
    private readonly context: ResponsesContext,
    private readonly prompt: Prompt,
    /** Whether the input continues a stored response, which may have function calls. */
    private readonly continues: boolean,
  ) {}

  /** Returns the role or the type of the last item. */
  read(input: unknown): string {
    const { wording } = providers[this.provider];
    if (typeof input === 'string') {
      this.prompt.add(input);
      return 'user';
    }
    if (!Array.isArray(input)) throw wrongType(wording, 'input', 'string', input);
    let last = '';
    input.forEach((item, index) => {
      if (!isFields(item)) throw wrongType(wording, `input[${index}]`, 'object', item);
      last = this.readItem(item, `input[${index}]`);
    });
    const [missing] = this.open;
    if (missing !== undefined)
      throw invalidRequest(`No tool output found for function call ${missing}.`, null, 'input');
    return last;
  }

  private readItem(item: Fields, at: string): string {
    const type = item['type'] ?? (item['role'] === undefined ? undefined : 'message');
    if (type === undefined) throw missingField('openai', `${at}.type`);
    if (type === 'message') return this.readMessage(item, at);
    if (type === 'reasoning') this.readReasoning(item);
    else if (type === 'item_reference') this.readReference(item, at);
    else if (type === 'function_call') this.readCall(item, at);
    else if (type === 'function_call_output') this.readOutput(item, at);
    else if (typeof type !== 'string' || !SERVER_ITEM.test(type)) throw wrongValue('openai', `${at}.type`, type, ITEMS);
    return String(type);
  }

  private readMessage({ role, content }: Fields, at: string): string {
    const { wording } = providers[this.provider];
    if (typeof role !== 'string' || !ROLES.includes(role)) throw wrongValue(wording, `${at}.role`, role, ROLES);
    if (typeof content === 'string') this.prompt.add(content);
    else if (Array.isArray(content))
      for (const [index, part] of content.entries()) this.readPart(part, `${at}.content[${index}]`);
    else throw wrongType(wording, `${at}.content`, 'string', content);
    return role;
  }

  private readPart(part: unknown, at: string): void {
    const { wording } = providers[this.provider];
    if (!isFields(part)) throw wrongType(wording, at, 'object', part);
    const { type } = part;
    if (!PARTS.includes(type as string)) throw wrongValue(wording, `${at}.type`, type, PARTS);
    if (typeof part['text'] === 'string') this.prompt.add(part['text']);
    if (type !== 'input_image') return;
    if (this.rule.images === false)
      throw wrongValue(
        wording,
        `${at}.type`,
        type,
        PARTS.filter((one) => one !== 'input_image'),
      );
    if (part['file_id'] === undefined) checkImageUrl(part['image_url'], `${at}.image_url`);
    this.prompt.addImage();
  }

  /** An item with encrypted content stands for itself; any other one must be stored. */
  private readReasoning({ id, encrypted_content: encrypted }: Fields): void {
    const { credential } = this.context;
    if (typeof encrypted === 'string') {
      if (credential.hasEncrypted(encrypted)) return;
      throw invalidRequest(
        `The encrypted content ${encrypted.slice(0, 4)}...${encrypted.slice(-4)} could not be verified.`,
        'invalid_encrypted_content',
      );
    }
    if (typeof id === 'string') this.checkStored(id);
  }

  private readReference({ id }: Fields, at: string): void {
    if (typeof id !== 'string') throw missingField('openai', `${at}.id`);
    this.checkStored(id);
    // The stored item may be a function call, whose output follows.
    this.known.add('*');
  }

  private checkStored(id: string): void {
    const { credential, stored } = this.context;
    if (stored.hasItem(credential, id)) return;
    throw new Rejection({
      status: 404,
      message: `Item with id '${id}' not found. Items are not persisted when \`store\` is set to false. Try again with \`store\` set to true, or remove this item from your input.`,
      type: 'invalid_request_error',
      param: 'input',
    });
  }

  private readCall(item: Fields, at: string): void {
    for (const field of ['call_id', 'name', 'arguments'])
      if (typeof item[field] !== 'string') throw missingField('openai', `${at}.${field}`);
    this.prompt.add(String(item['arguments']));
    this.open.add(String(item['call_id']));
    this.known.add(String(item['call_id']));
  }

  private readOutput({ call_id: id, output }: Fields, at: string): void {
    if (typeof id !== 'string') throw missingField('openai', `${at}.call_id`);
    if (output === undefined) throw missingField('openai', `${at}.output`);
    if (!this.known.has(id) && !this.known.has('*') && !this.continues)
      throw invalidRequest(`No tool call found for function call output with call_id ${id}.`, null, 'input');
    this.open.delete(id);
    this.prompt.add(typeof output === 'string' ? output : JSON.stringify(output));
  }
}

function readTools(provider: ProviderName, tools: unknown): Tool[] {
  const { wording, rejectsUnknownParameters } = providers[provider];
  if (!Array.isArray(tools)) return [];
  return tools.flatMap((tool, index) => {
    const at = `tools[${index}]`;
    if (!isFields(tool) || typeof tool['type'] !== 'string') throw missingField(wording, `${at}.type`);
    // Other tools are run by the provider.
    if (tool['type'] !== 'function') return [];
    checkName(tool['name'], `${at}.name`);
    const schema = tool['parameters'] ?? { type: 'object', properties: {} };
    const strict = rejectsUnknownParameters && tool['strict'] === true;
    checkSchema(schema, `function '${tool['name']}'`, `${at}.parameters`, strict);
    return [{ name: tool['name'], schema }];
  });
}

const CHOICES = ['none', 'auto', 'required'];

function readToolChoice(
  provider: ProviderName,
  choice: unknown,
  tools: readonly Tool[],
  { forced_tool_choice }: ModelRule,
): ToolChoice {
  const { wording } = providers[provider];
  if (choice === undefined || choice === null) return tools.length > 0 ? 'auto' : 'none';
  if (forced_tool_choice === false && choice !== 'none' && choice !== 'auto')
    throw invalidRequest('This model does not support this tool_choice', null, 'tool_choice');
  if (typeof choice === 'string') {
    if (!CHOICES.includes(choice)) throw wrongValue(wording, 'tool_choice', choice, CHOICES);
    return choice as ToolChoice;
  }
  if (!isFields(choice) || choice['type'] !== 'function') return 'auto';
  if (typeof choice['name'] !== 'string') throw missingField(wording, 'tool_choice.name');
  return namedChoice(choice['name'], tools);
}

const FORMATS = ['text', 'json_object', 'json_schema'];

function readFormat(provider: ProviderName, text: unknown, prompt: string): ResponseFormat | undefined {
  const { wording, requiresJsonWord, rejectsUnknownParameters } = providers[provider];
  const format = isFields(text) ? text['format'] : undefined;
  if (!isFields(format)) return undefined;
  const { type, name, schema, strict } = format;
  if (!FORMATS.includes(type as string)) throw wrongValue(wording, 'text.format.type', type, FORMATS);
  if (type === 'text') return undefined;
  if (type === 'json_object') {
    if (requiresJsonWord) checkJsonWord(prompt, 'input', 'text.format');
    return { type };
  }
  checkName(name, 'text.format.name');
  checkSchema(schema, `response_format '${name}'`, 'text.format.schema', rejectsUnknownParameters && strict === true);
  return { type: 'json_schema', schema };
}

import type { IncomingMessage } from 'node:http';
import { isTooDeep } from './json_text.js';
import type { RequestLog } from './request_log.js';
import { type FakeResponse, jsonResponse } from './responses/response.js';
import { parseScript, type Script, ScriptError } from './script.js';

/** What the control endpoints change. */
export interface Controlled {
  readonly log: RequestLog;
  readonly script: () => Script;
  readonly setScript: (script: Script) => void;
  readonly readBody: (request: IncomingMessage) => Promise<string>;
}

/** The path below which the control endpoints are. */
export const CONTROL_PATH = '/_fake/';

const problem = (status: number, message: string): FakeResponse => jsonResponse(status, { error: { message } });

/** Handles a request to a control endpoint: the request log and the script. */
export async function control(controlled: Controlled, request: IncomingMessage, path: string): Promise<FakeResponse> {
  // A page in a browser must neither read prompts nor change faults.
  if (request.headers['origin'] !== undefined) return problem(403, 'Requests of browsers are not accepted');
  const { method } = request;
  const { log } = controlled;
  if (path === '/_fake/log') {
    if (method === 'GET') return jsonResponse(200, { requests: log.all, ...log.lost });
    if (method !== 'DELETE') return problem(405, 'Use GET or DELETE');
    log.clear();
    return jsonResponse(200, { requests: [] });
  }
  if (path !== '/_fake/faults') return problem(404, 'There are /_fake/log and /_fake/faults');
  if (method === 'GET') return jsonResponse(200, shown(controlled.script()));
  if (method === 'DELETE') return setScript(controlled, '{}');
  return method === 'PUT'
    ? setScript(controlled, await controlled.readBody(request))
    : problem(405, 'Use GET, PUT or DELETE');
}

function setScript({ setScript, script }: Controlled, text: string): FakeResponse {
  if (isTooDeep(text)) return problem(400, 'the script: is nested too deeply');
  try {
    setScript(parseScript(text));
  } catch (error) {
    if (!(error instanceof ScriptError)) throw error;
    return jsonResponse(400, { error: { message: error.message, problems: error.problems } });
  }
  return jsonResponse(200, shown(script()));
}

/** A script as it is shown: with the text of its faults, and without its keys. */
const shown = ({ rules, keys, ...rest }: Script) => ({
  ...rest,
  rules: rules.map(({ match: { key, ...match }, fault, response }) => ({ match, fault: fault?.text, response })),
  keys: keys?.length,
});

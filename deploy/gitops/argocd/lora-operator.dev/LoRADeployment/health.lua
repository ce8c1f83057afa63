-- Healthy: what this generation asks for serves. Degraded: only a change of the object helps.
-- Progressing is all else, a missing Secret too: that is cured without a change of the object.
local function answer(status, condition)
  if condition == nil then
    return {status = status, message = "waiting for the operator to look at this generation"}
  end
  return {status = status, message = condition.reason .. ": " .. (condition.message or "")}
end

local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    if condition.observedGeneration == obj.metadata.generation then
      conditions[condition.type] = condition
    end
  end
end

local ready, stalled, reconciling = conditions.Ready, conditions.Stalled, conditions.Reconciling
if ready == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return answer("Progressing", ready)
end
if stalled ~= nil and stalled.status == "True" then
  return answer("Degraded", stalled)
end
if reconciling ~= nil and reconciling.status == "True" then
  return answer("Progressing", ready.status == "True" and reconciling or ready)
end
if ready.status == "True" then
  return answer("Healthy", ready)
end
if ready.status == "False" then
  return answer("Degraded", ready)
end
return answer("Progressing", ready)

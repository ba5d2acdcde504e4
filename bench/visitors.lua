-- For wrk: the visitors ask in turn, each with a cookie of its own, a line each in COOKIES.

local requests, last = {}, 0

function init()
   for cookie in os.getenv("COOKIES"):gmatch("%C+") do
      table.insert(requests, wrk.format(nil, nil, { Cookie = cookie }))
   end
end

function request()
   last = last % #requests + 1
   return requests[last]
end
